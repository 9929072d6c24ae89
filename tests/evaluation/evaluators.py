"""Evaluators for tests: of stage outputs, and of a small model trained on arithmetic."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from atlas.cleaning.documents import Document
from atlas.corpora.arithmetic import EQUALS, write_arithmetic
from atlas.evaluation.evaluator import Evaluator
from atlas.model.transformer import Decoder
from atlas.params.schema import EvaluateParams
from atlas.tokens.shards import TokenSplit
from atlas.tokens.tokenizer import Tokenizer
from atlas.tokens.train_tokenizer import train_tokenizer
from atlas.training.checkpoint import Checkpoints
from atlas.training.distributed import DistributedContext
from atlas.training.trainer import Trainer, build_model
from tests.small import small_params, write_documents, write_tokens

EVALUATE = small_params(**{"evaluate.free_samples": 5, "evaluate.sample_tokens": 12}).evaluate
OPTIONS = {
    "tokenizer.kind": "word",
    "tokenizer.vocab_size": 64,
    "tokenize.windows": "padded",
    "tokenize.prompt_separator": EQUALS,
    "model.context_length": 10,
    "model.d_model": 64,
    "model.n_layer": 2,
    "model.n_head": 4,
    "model.n_kv_head": 4,
    "model.d_ff": 192,
    "train.batch_size": 64,
    "train.lr": 3e-3,
    "train.eval_every": 1000,
    "train.sample_tokens": None,
    "evaluate.prompts": [],
    "evaluate.sample_tokens": 4,
    "evaluate.temperature": 0.0,
    "export.formats": [],
}


def load_evaluator(folder: Path, params: EvaluateParams = EVALUATE) -> Evaluator:
    """Load an evaluator from a folder that holds the outputs of all earlier stages."""
    folders = (folder / name for name in ("model", "tokenizer", "tokens", "clean"))
    return Evaluator.load(*folders, params, torch.device("cpu"))


def arithmetic_documents(folder: Path, operations: Sequence[str], count: int) -> list[Document]:
    """Write arithmetic examples and return about ``count`` of the given operations."""
    folder.mkdir()
    (name,) = write_arithmetic(folder, 9 * count // len(operations), 1)
    lines = (folder / name).read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    return [
        Document(str(number), record["source"], record["text"])
        for number, record in enumerate(records)
        if record["source"] in operations
    ]


def train_arithmetic(
    folder: Path, operations: Sequence[str], *, examples: int, steps: int, **options: object
) -> Evaluator:
    """Train a model on 80 % of the examples, and return an evaluator for it."""
    folder.mkdir(exist_ok=True)
    params = small_params(**(OPTIONS | {"train.steps": steps} | options))
    documents = arithmetic_documents(folder / "raw", operations, examples)
    tokenizer: Tokenizer = train_tokenizer([each.text for each in documents], params.tokenizer)
    held_out = len(documents) // 10
    documents_by_split = {
        "val": documents[:held_out],
        "test": documents[held_out : 2 * held_out],
        "train": documents[2 * held_out :],
    }
    for split, chosen in documents_by_split.items():
        write_documents(folder / "clean" / split, chosen)
    ids = {
        split: [[[*tokenizer.encode(each.text), tokenizer.eos] for each in chosen]]
        for split, chosen in documents_by_split.items()
    }
    (separator,) = tokenizer.encode(EQUALS)
    tokens = write_tokens(
        folder / "tokens", ids, tokenizer.vocab_size, "padded", separator, tokenizer
    )
    splits = {split: TokenSplit(tokens, split) for split in ("train", "val", "test")}
    model = build_model(params, splits["train"].index, DistributedContext(torch.device("cpu")))
    assert isinstance(model, Decoder)
    checkpoints = Checkpoints(folder / "checkpoints")
    Trainer(model, params, splits, checkpoints, DistributedContext(torch.device("cpu"))).fit()
    return Evaluator(model.eval(), tokenizer, splits, folder / "clean", params.evaluate)
