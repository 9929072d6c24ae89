"""What is evaluated: a model with its tokenizer, and the splits that it is held against."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from atlas.cleaning.documents import SPLITS, Document, Split, read_documents
from atlas.evaluation.questions import Questions
from atlas.evaluation.scores import (
    Numbers,
    Scores,
    Sums,
    baseline_measures,
    calibration_error,
    calibration_table,
    measures,
    score,
)
from atlas.evaluation.sliding import sliding_windows
from atlas.model.config import check_tokenizer
from atlas.model.language_model import LanguageModel
from atlas.model.storage import load_model
from atlas.params.schema import EvaluateParams
from atlas.tokens.bigrams import BigramCounts
from atlas.tokens.shards import TokenSplit
from atlas.tokens.tokenizer import Tokenizer
from atlas.tokens.windows import EvaluationWindows


@dataclass(frozen=True)
class Subject:
    """A trained model and the text to judge it by.

    Attributes:
        model: on its device.
        tokenizer: of the model.
        splits: tokens of train, those that were learned from, and of val and test.
        documents: the folder of the clean documents, which the tokens are of.
        evaluate: the params.
    """

    model: LanguageModel
    tokenizer: Tokenizer
    splits: Mapping[Split, TokenSplit]
    documents: Path
    evaluate: EvaluateParams

    @classmethod
    def load(
        cls,
        model: Path,
        tokenizer: Path,
        tokens: Path,
        documents: Path,
        evaluate: EvaluateParams,
        device: torch.device,
    ) -> "Subject":
        """Reads what the stages before wrote.

        Raises:
            AtlasError: a file is missing or damaged, or they are of different tokenizers.
        """
        found = Tokenizer.load(tokenizer)
        loaded = load_model(model, device, evaluate.weights)
        check_tokenizer(loaded.config, found.sha256, str(tokenizer))
        first = {"train": loaded.config.learned_tokens}
        splits = {split: TokenSplit(tokens, split, first.get(split)) for split in SPLITS}
        for split in splits.values():
            check_tokenizer(loaded.config, split.index.tokenizer_sha256, str(tokens / split.name))
        return cls(loaded, found, splits, documents, evaluate)

    @property
    def held_out(self) -> list[Split]:
        """The splits that were not learned and hold something: val, and test if there is one."""
        return [split for split in SPLITS if split != "train" and len(self.splits[split])]

    @property
    def judge(self) -> Split:
        """The split that tables are made of: test, or val where there is none."""
        return self.held_out[-1]

    @property
    def has_questions(self) -> bool:
        """Whether documents are questions with answers."""
        return self.model.config.separator is not None

    @cached_property
    def pairs(self) -> BigramCounts:
        """What counting knows of the training text."""
        return BigramCounts.count(self.splits["train"], self.model.config.context_length)

    def documents_of(self, split: Split) -> list[Document]:
        """The documents of a split, in the order of its tokens; read once."""
        if split not in self._read:
            self._read[split] = list(read_documents(self.documents / split))
        return self._read[split]

    def sources_of(self, split: Split) -> list[str]:
        """The source of each document of a split."""
        return [each.source for each in self.documents_of(split)]

    def questions_of(self, split: Split) -> Questions:
        """The questions of a split, in the order of its documents; cut once."""
        if split not in self._cut:
            self._cut[split] = Questions.of(self.splits[split])
        return self._cut[split]

    @cached_property
    def _read(self) -> dict[Split, list[Document]]:
        return {}

    @cached_property
    def _cut(self) -> dict[Split, Questions]:
        return {}

    def scores(self, split: Split) -> Scores:
        """A split, token by token, in windows side by side."""
        size, length = self.evaluate.batch_size, self.model.config.context_length
        return score(self.model, EvaluationWindows(self.splits[split], length, size).all())

    def measure(self, split: Split, scores: Scores) -> Numbers:
        """All single numbers of a split, by name: plain, sliding, of baselines, calibration."""
        tokens = self.splits[split]
        found = measures(scores.total, len(scores), tokens) | {"tokens": len(scores)}
        found["accuracy"] = self._accuracy(scores, tokens)
        found["calibration_error"] = calibration_error(calibration_table(scores))
        found |= baseline_measures(scores, self.pairs, tokens)
        if self.evaluate.stride is not None and not self.has_questions:
            length = self.model.config.context_length
            stride = max(1, round(self.evaluate.stride * length))
            windows = sliding_windows(tokens, length, stride, self.evaluate.batch_size)
            sliding = score(self.model, windows)
            by_name = measures(sliding.total, len(sliding), tokens)
            found |= {f"sliding_{name}": value for name, value in by_name.items()}
        return found

    def _accuracy(self, scores: Scores, tokens: TokenSplit) -> float:
        if not self.has_questions:
            return float(scores.right.mean())
        return float(Sums.of(scores, tokens).answered.mean())
