"""Small data and small models for the tests."""

import copy
import functools
import json
import random
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from atlas.cleaning.documents import Document, Split
from atlas.model.config import ModelConfig
from atlas.params.schema import MixEntry, Params
from atlas.tokens.shards import CorpusSize, ShardWriter, SplitIndex, TokenIndex, shard_path
from atlas.tokens.tokenizer import Tokenizer
from tests.code_walk import ROOT

CORPORA = ROOT.parent / "shared/corpora"  # real texts, present on some machines
SHA = "0" * 64  # hash of no tokenizer
EOS, PAD = 1, 2
WORDS = (  # noqa: SIM905
    "the a one this each small red old quiet lamp river stone garden letter window sees holds "
    "crosses finds under over near and then slowly never again morning evening"
).split()

SMALL: dict[str, Any] = {
    "corpus.name": "files",
    "corpus.files.path": "data/own",
    "tokenizer.vocab_size": 400,
    "model.d_model": 32,
    "model.n_layer": 2,
    "model.n_head": 2,
    "model.n_kv_head": 1,
    "model.d_ff": 64,
    "model.context_length": 32,
    "train.steps": 120,
    "train.batch_size": 4,
    "train.eval_every": 40,
    "train.eval_windows": 8,
    "train.eval_train_windows": None,
    "evaluate.prompts": ["the lamp", "one"],
    "evaluate.sample_tokens": 20,
    "export.formats": ["gguf:f32", "gguf:q8_0"],
    "export.check_tokens": 10,
    "export.check_windows": 4,
}


def text(seed: int, sentences: int = 12) -> str:
    """Return a document of random sentences, determined by the seed."""
    generator = random.Random(seed)
    lines = []
    for _ in range(sentences):
        words = generator.choices(WORDS, k=generator.randint(4, 10))
        lines.append(" ".join(words).capitalize() + ".")
    return "\n".join(lines)


def write_jsonl(path: Path, documents: int = 200) -> None:
    """Write a corpus of random documents."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"text": text(seed)}) for seed in range(documents)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_documents(folder: Path, documents: list[Document]) -> None:
    """Write a split of clean documents."""
    folder.mkdir(parents=True)
    (folder / "00000.jsonl").write_bytes(b"".join(each.to_line() for each in documents))


def write_tokens(
    folder: Path,
    splits: Mapping[Split, Sequence[Sequence[Sequence[int]]]],
    vocab_size: int = 400,
    windows: str = "packed",
    separator: int | None = None,
    tokenizer: Tokenizer | None = None,
    corpora: Mapping[str, int] | None = None,
) -> Path:
    """Write token shards and their index; ``splits`` maps a split to shards of documents.

    ``corpora`` gives the number of documents of each corpus of a mix.
    """
    known = (tokenizer.eos, tokenizer.pad, tokenizer.sha256) if tokenizer else (EOS, PAD, SHA)
    eos, pad, sha256 = known
    folder.mkdir(parents=True, exist_ok=True)
    entries = {}
    for split, shards in splits.items():
        counts = []
        for number, documents in enumerate(shards):
            writer = ShardWriter(shard_path(folder, split, number), vocab_size, sha256)
            for ids in documents:
                is_separator = np.array(ids, np.int64) == separator
                given = is_separator.cumsum() == is_separator  # up to the first one
                writer.write(ids, [len(ids)], None if separator is None else given)
            writer.close()
            counts.append(writer.tokens)
        documents_in_all = sum(map(len, shards))
        lengths = iter([len(ids) for documents in shards for ids in documents])
        sizes = {}
        for label, count in (corpora or {}).items():
            tokens = sum(islice(lengths, count))
            sizes[label] = CorpusSize(tokens, count, tokens)
        entries[split] = SplitIndex(counts, documents_in_all, sum(counts), sizes)
    TokenIndex(vocab_size, eos, pad, separator, sha256, windows, entries).write(folder)
    return folder


PARAMS: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))


def params_tree(**changes: Any) -> dict[str, Any]:
    """Return the project's params with changes by dotted key."""
    tree = copy.deepcopy(PARAMS)
    for dotted, value in changes.items():
        *sections, key = dotted.split(".")
        place = tree
        for section in sections:
            place = place[section]
        place[key] = value
    return tree


def small_params(**changes: Any) -> Params:
    """Return params of a model that trains in seconds."""
    return Params.from_mapping(params_tree(**(SMALL | changes)))


def mix_of(*entries: dict[str, Any] | str) -> tuple[MixEntry, ...]:
    """Return the entries of a mix, each given as in params.yaml."""
    mix = small_params(**{"corpus.name": "mix", "corpus.mix": list(entries)}).corpus.mix
    assert mix is not None
    return mix


@functools.cache
def small_model() -> dict[str, Any]:
    """Return the section ``model`` of the small params."""
    return small_params().model.model_dump()


def small_config(**options: Any) -> ModelConfig:
    """Return the config of a model with a few thousand weights."""
    eos = options.get("eos", EOS)
    values = small_model() | {
        "vocab_size": 400,
        "bos": eos,
        "eos": eos,
        "end_ids": (eos,),
        "sequence_length": options.get("context_length", SMALL["model.context_length"]),
        "separator": None,
        "add_bos_token": options.get("separator") is not None,  # questions are in padded windows
        "tokenizer_sha256": SHA,
        "learned_tokens": 1000,
    }
    return ModelConfig(**(values | options))


LLAMA_SHAPE = {"positions": "rope", "norm": "rmsnorm", "feed_forward": "swiglu"}
GPT2_SHAPE = {"positions": "learned", "norm": "layernorm", "feed_forward": "gelu"}
