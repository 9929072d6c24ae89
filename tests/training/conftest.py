"""Trainings of 30 steps that take a second."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from atlas.model.initialize import initialise, make_model
from atlas.tokens.shards import TokenSplit
from atlas.training.checkpoint import Checkpoints
from atlas.training.distributed import World
from atlas.training.trainer import Training, make_training
from tests.small import small_config, small_params, write_tokens

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """Gives this process back what a stopped training keeps."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def token_folder(tmp_path_factory, tokenizer, documents) -> Path:
    ids = [tokenizer.encode(document.text) for document in documents]
    shards = {"train": [ids[:80]], "val": [ids[80:]]}
    return write_tokens(tmp_path_factory.mktemp("tokens"), shards)


@pytest.fixture(scope="session")
def splits(token_folder) -> dict[str, TokenSplit]:
    return {split: TokenSplit(token_folder, split) for split in ("train", "val")}


@pytest.fixture
def training(splits, tmp_path) -> Callable[..., Training]:
    """Makes a training of 30 steps in a folder of its own."""

    def make(folder="run", dropout=0.1, options=None, events=None, sample=None, **changes):
        changes = {"steps": 30, "eval_every": 10, "log_every": 7, "lr": 0.01} | changes
        params = small_params(**{f"train.{key}": value for key, value in changes.items()})
        model = make_model(small_config(dropout=dropout, **(options or {})))
        initialise(model, params.train.seed)
        return make_training(
            model,
            params,
            splits,
            Checkpoints(tmp_path / folder),
            World(CPU),
            events=events,
            sample=sample,
        )

    return make
