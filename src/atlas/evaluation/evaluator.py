"""The evaluator: a trained model, its tokenizer and the splits to measure it on."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path

import torch

from atlas.cleaning.documents import SPLITS, Document, Split, read_documents
from atlas.evaluation.scores import (
    Metrics,
    Scores,
    baseline_metrics,
    calibration_error,
    calibration_table,
    document_scores,
    loss_metrics,
    score_batches,
    sliding_windows,
)
from atlas.model.config import check_tokenizer
from atlas.model.language_model import LanguageModel
from atlas.model.weights import load_model
from atlas.params.schema import EvaluateParams
from atlas.params.start import is_empty
from atlas.tokens.bigrams import BigramCounts
from atlas.tokens.shards import TokenSplit
from atlas.tokens.tokenizer import Tokenizer
from atlas.tokens.windows import EvaluationWindows


@dataclass(frozen=True)
class Questions:
    """The questions and answers of a split, as ids."""

    prompts: list[list[int]]  # each question, up to and including the separator
    answers: list[list[int]]  # each answer, without the end-of-text token

    @classmethod
    def from_split(cls, tokens: TokenSplit) -> "Questions":
        """Cut each document after its first separator."""
        separator, eos = tokens.index.separator, tokens.index.eos
        prompts, answers, start = [], [], 0
        for end in tokens.document_ends.tolist():
            ids = tokens.read(start, end).tolist()
            start = end
            cut = ids.index(separator) + 1 if separator in ids else len(ids)
            prompts.append(ids[:cut])
            answers.append([token for token in ids[cut:] if token != eos])
        return cls(prompts, answers)


@dataclass(frozen=True, eq=False)
class Evaluator:
    """A trained model and the text to measure it on."""

    model: LanguageModel
    tokenizer: Tokenizer
    splits: Mapping[Split, TokenSplit]  # train (what the model was trained on), val and test
    documents_folder: Path  # clean documents that the tokens were made from
    params: EvaluateParams

    @classmethod
    def load(
        cls,
        model_folder: Path,
        tokenizer_folder: Path,
        tokens_folder: Path,
        documents_folder: Path,
        params: EvaluateParams,
        device: torch.device,
    ) -> "Evaluator":
        """Read the outputs of the earlier stages; reject any from another tokenizer."""
        tokenizer = Tokenizer.load(tokenizer_folder)
        model = load_model(model_folder, device, params.weights)
        check_tokenizer(model.config, tokenizer.sha256, str(tokenizer_folder))
        limits = {"train": model.config.learned_tokens}
        splits = {split: TokenSplit(tokens_folder, split, limits.get(split)) for split in SPLITS}
        for name, split in splits.items():
            check_tokenizer(model.config, split.index.tokenizer_sha256, str(tokens_folder / name))
        return cls(model, tokenizer, splits, documents_folder, params)

    def of_base(self, folder: Path) -> "Evaluator | None":
        """Return an evaluator of the weights that training started from, with the same windows.

        None if the folder is empty: training started from new weights.
        """
        if is_empty(folder):
            return None
        base = load_model(folder, self.model.device)
        check_tokenizer(base.config, self.tokenizer.sha256, "models/tokenizer", str(folder))
        reading = ("context_length", "sequence_length", "separator", "add_bos_token")
        changes = {name: getattr(self.model.config, name) for name in reading}
        base.config = base.config.model_copy(update=changes)
        return replace(self, model=base)

    @property
    def held_out_splits(self) -> list[Split]:
        """Splits that are not trained on: val, and test unless it is empty."""
        return [split for split in SPLITS if split != "train" and len(self.splits[split])]

    @property
    def table_split(self) -> Split:
        """The split that the tables describe: test, or val if test is empty."""
        return self.held_out_splits[-1]

    @property
    def has_questions(self) -> bool:
        """True if the documents are questions with answers."""
        return self.model.config.separator is not None

    @cached_property
    def bigram_counts(self) -> BigramCounts:
        """Counts of token pairs in the training text, for the n-gram baselines."""
        return BigramCounts.count(self.splits["train"], self.model.config.sequence_length)

    @cache  # noqa: B019 - an evaluator lives as long as its process
    def documents(self, split: Split) -> list[Document]:
        """Documents of a split, in the order of its tokens."""
        return list(read_documents(self.documents_folder / split))

    def sources(self, split: Split) -> list[str]:
        """Source of each document of a split, in tables."""
        return [document.table_source for document in self.documents(split)]

    @cache  # noqa: B019
    def questions(self, split: Split) -> Questions:
        """Questions of a split, in the order of its documents."""
        return Questions.from_split(self.splits[split])

    def score(self, split: Split) -> Scores:
        """Score a split in adjacent windows."""
        length = self.model.config.sequence_length
        windows = EvaluationWindows(self.splits[split], length, self.params.batch_size)
        return score_batches(self.model, windows.all())

    def main_metrics(self, split: Split, scores: Scores) -> Metrics:
        """Compute loss, perplexity, bits per byte and accuracy, of tokens or whole answers."""
        tokens = self.splits[split]
        right = scores.correct
        if self.has_questions:
            right = document_scores(scores, tokens)["all_correct"].to_numpy()
        loss = loss_metrics(scores.total_loss, len(scores), tokens)
        return loss | {"accuracy": float(right.mean())}

    def held_out_metrics(self) -> Metrics:
        """Compute the main metrics of each split that is not trained on."""
        return {
            f"{split}_{name}": value
            for split in self.held_out_splits
            for name, value in self.main_metrics(split, self.score(split)).items()
        }

    def metrics(self, split: Split, scores: Scores) -> Metrics:
        """Compute all metrics of a split: model, sliding windows, baselines and calibration."""
        tokens = self.splits[split]
        metrics = self.main_metrics(split, scores) | {"tokens": len(scores)}
        metrics["calibration_error"] = calibration_error(calibration_table(scores))
        metrics |= baseline_metrics(scores, self.bigram_counts, tokens)
        if self.params.stride is not None and not self.has_questions:
            length = self.model.config.sequence_length
            stride = max(1, round(self.params.stride * length))
            windows = sliding_windows(tokens, length, stride, self.params.batch_size)
            sliding = score_batches(self.model, windows)
            sliding_metrics = loss_metrics(sliding.total_loss, len(sliding), tokens)
            metrics |= {f"sliding_{name}": value for name, value in sliding_metrics.items()}
        return metrics
