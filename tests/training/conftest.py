"""Training runs of 30 steps that take a second."""

import signal
from collections.abc import Callable, Iterator

import pytest
import torch

from atlas.model.weights import initialize, make_model
from atlas.tokens.shards import TokenSplit
from atlas.training import metrics
from atlas.training.checkpoint import Checkpoints
from atlas.training.distributed import DistributedContext
from atlas.training.trainer import Trainer
from tests.small import small_config, small_params

CPU = torch.device("cpu")
ALONE = DistributedContext(CPU)


@pytest.fixture(autouse=True)
def _quick_speed_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure the machine with small matrices, because each run does."""
    monkeypatch.setitem(metrics.MATMUL_SIZES, "cpu", 128)


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """Restore the signal handlers that a stopped training keeps."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def splits(token_folder) -> dict[str, TokenSplit]:
    return {split: TokenSplit(token_folder, split) for split in ("train", "val")}


@pytest.fixture
def new_trainer(splits, tmp_path) -> Callable[..., Trainer]:
    """Create a trainer of 30 steps in its own folder."""

    def make(
        folder="run", dropout=0.1, options=None, events=None, live=None, sample=None, **changes
    ):
        changes = {"steps": 30, "eval_every": 10, "log_every": 7, "lr": 0.01} | changes
        params = small_params(**{f"train.{key}": value for key, value in changes.items()})
        model = make_model(small_config(dropout=dropout, **(options or {})))
        initialize(model, params.train.seed)
        return Trainer(
            model,
            params,
            splits,
            Checkpoints(tmp_path / folder),
            DistributedContext(CPU),
            events=events,
            live=live,
            sample=sample,
        )

    return make
