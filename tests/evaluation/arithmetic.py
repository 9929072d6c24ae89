"""The arithmetic language in small: tokens, documents and a model that has learned some of it."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from atlas.cleaning.documents import Document
from atlas.corpora.arithmetic import EQUALS, write_arithmetic
from atlas.evaluation.evaluator import Subject
from atlas.model.decoder import Decoder
from atlas.tokens.shards import TokenSplit
from atlas.tokens.tokenizer import Tokenizer
from atlas.tokens.train_tokenizer import train_tokenizer
from atlas.training.checkpoint import Checkpoints
from atlas.training.distributed import World
from atlas.training.trainer import make_training, new_model
from tests.small import small_params, write_documents, write_tokens

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


def examples_of(folder: Path, operations: Sequence[str], examples: int) -> list[Document]:
    """So many examples of some operations."""
    folder.mkdir()
    (name,) = write_arithmetic(folder, 9 * examples // len(operations), 1)
    lines = (folder / name).read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines]
    return [
        Document(str(number), each["source"], each["text"])
        for number, each in enumerate(found)
        if each["source"] in operations
    ]


def learned(
    folder: Path, operations: Sequence[str], *, examples: int, steps: int, **options: object
) -> Subject:
    """A model that was trained on most of the examples, with all that it is judged by."""
    folder.mkdir(exist_ok=True)
    params = small_params(**(OPTIONS | {"train.steps": steps} | options))
    documents = examples_of(folder / "raw", operations, examples)
    tokenizer: Tokenizer = train_tokenizer([each.text for each in documents], params.tokenizer)
    held_out = len(documents) // 10
    parts = {
        "val": documents[:held_out],
        "test": documents[held_out : 2 * held_out],
        "train": documents[2 * held_out :],
    }
    for split, some in parts.items():
        write_documents(folder / "clean" / split, some)
    ids = {
        split: [[[*tokenizer.encode(each.text), tokenizer.eos] for each in some]]
        for split, some in parts.items()
    }
    (separator,) = tokenizer.encode(EQUALS)
    tokens = write_tokens(
        folder / "tokens", ids, tokenizer.vocab_size, "padded", separator, tokenizer
    )
    splits = {split: TokenSplit(tokens, split) for split in ("train", "val", "test")}
    model = new_model(params, splits["train"].index, World(torch.device("cpu")))
    assert isinstance(model, Decoder)
    checkpoints = Checkpoints(folder / "checkpoints")
    make_training(model, params, splits, checkpoints, World(torch.device("cpu"))).run()
    return Subject(model.eval(), tokenizer, splits, folder / "clean", params.evaluate)
