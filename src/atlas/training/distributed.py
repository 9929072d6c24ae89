"""One training in several processes of this machine: ``ATLAS_NPROC``.

    ATLAS_NPROC=2 dvc repro train

The stage starts itself that many times under torchrun's own launcher. Under a torchrun that someone
else has started, on one machine or on many, there is nothing to launch.

The processes that train one model together, and what they tell each other.

Under torchrun every process runs the same program and reads its own share of each batch. One of
them, the first, writes. DDP keeps the whole model in each; FSDP2 keeps a share of each weight in
each, and gathers a block when it is its turn (arXiv:2304.11277).
"""

import gc
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import psutil
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import is_torchelastic_launched
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from torch.nn.parallel import DistributedDataParallel

from atlas.errors import EXIT_REFUSED, EXIT_STOPPED, AtlasError, one_line_errors
from atlas.pipeline.processes import end_with_dvc
from atlas.tokens.windows import NO_TARGET, TokenBatch

STRATEGY = "ATLAS_STRATEGY"
STRATEGIES = ("ddp", "fsdp")
PATIENCE = timedelta(minutes=30)  # others may write a checkpoint, or compile


@dataclass(frozen=True)
class World:
    """All processes of a run, seen from one of them.

    Attributes:
        rank: number of this one.
        size: how many there are.
        strategy: ``ddp`` or ``fsdp``; of no meaning alone.
        device: of this process.
    """

    device: torch.device
    rank: int = 0
    size: int = 1
    strategy: str = "ddp"

    @property
    def is_first(self) -> bool:
        """Whether this one writes and prints."""
        return self.rank == 0

    @property
    def shards(self) -> bool:
        """Whether each process holds a share of the weights alone."""
        return self.size > 1 and self.strategy == "fsdp"

    def join(self, loss: nn.Module, model: nn.Module, blocks: list[nn.Module]) -> nn.Module:
        """Has the copies of a model in all processes learn as one.

        Args:
            loss: what is called, with the model in it.
            model: that learns.
            blocks: of it, which FSDP2 gathers one by one.

        Returns:
            What is to be called instead.
        """
        if self.size == 1:
            return loss
        if self.strategy == "fsdp":
            mesh = init_device_mesh(self.device.type, (self.size,))
            for part in [*blocks, model]:
                fully_shard(part, mesh=mesh)
            return loss
        places = [self.device] if self.device.type != "cpu" else None
        # Buffers are tables that every process has made; they need not be sent round.
        return DistributedDataParallel(
            loss, device_ids=places, gradient_as_bucket_view=True, forward_sync_buffers=False
        )

    @contextmanager
    def adding_up(self, loss: nn.Module, model: nn.Module, last: bool) -> Iterator[None]:
        """Within, gradients are only sent round with the last part of a batch."""
        if isinstance(model, FSDPModule):
            model.set_requires_gradient_sync(last)
            yield
        elif isinstance(loss, DistributedDataParallel) and not last:
            with loss.no_sync():
                yield
        else:
            yield

    def sum(self, values: Tensor) -> Tensor:
        """The sum of a tensor over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def sums(self, *values: float) -> list[float]:
        """The sum of each number over all processes."""
        if self.size == 1:
            return list(values)
        total: list[float] = self.sum(
            torch.tensor(values, dtype=torch.float64, device=self.device)
        ).tolist()
        return total

    def any(self, value: bool) -> bool:
        """Whether it is true of any process."""
        return self.sums(value)[0] > 0

    def shares(self, batches: Iterable[TokenBatch[Any]]) -> Iterator[TokenBatch[Any]]:
        """This process's rows of each batch; without any, one row with nothing to predict.

        All get the same number of batches, as FSDP2 wants all to call the model.
        """
        for batch in batches:
            own = TokenBatch(*(part[self.rank :: self.size] for part in batch))
            if not len(own.inputs):
                first = TokenBatch(*(part[:1] for part in batch))
                own = first._replace(targets=np.full_like(first.targets, NO_TARGET))
            yield own

    def share(self, rows: int) -> slice:
        """The rows of a batch that are this process's.

        Raises:
            AtlasError: they cannot be divided evenly.
        """
        if rows % self.size:
            raise AtlasError(
                f"train.batch_size ({rows}) is not divisible by the {self.size} processes: take "
                f"{rows + self.size - rows % self.size}, or another ATLAS_NPROC"
            )
        each = rows // self.size
        return slice(self.rank * each, (self.rank + 1) * each)


@contextmanager
def the_world(device: torch.device) -> Iterator[World]:
    """The processes that torchrun has started with this one; this one alone without it.

    Raises:
        AtlasError: ``ATLAS_STRATEGY`` names no way to train together.
    """
    strategy = os.environ.get(STRATEGY, "ddp")
    if strategy not in STRATEGIES:
        raise AtlasError(f"{STRATEGY}={strategy}: give {' or '.join(STRATEGIES)}")
    if not dist.is_torchelastic_launched():
        yield World(device)
        return
    backend = "nccl" if device.type == "cuda" else "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(backend, timeout=PATIENCE)
    try:
        yield World(device, dist.get_rank(), dist.get_world_size(), strategy)
    except BaseException as error:
        _let_go(error)
        raise
    finally:
        gc.collect()
        dist.destroy_process_group()


def _let_go(error: BaseException | None) -> None:
    """Forgets the variables of what an error went through, in which DDP lives on.

    If the last to hold gloo's threads is DDP it waits for them, and they for the interpreter that
    it holds: the process would never end (pytorch/pytorch#190489).
    """
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__


VARIABLE = "ATLAS_NPROC"
SECONDS_TO_STOP = 600  # for a last step and a checkpoint; torchrun's own are 30


def processes_wanted() -> int:
    """``ATLAS_NPROC``, or 1.

    Raises:
        AtlasError: it is no number above 0.
    """
    value = os.environ.get(VARIABLE, "1")
    if not value.isdecimal() or int(value) < 1:
        raise AtlasError(f"{VARIABLE}={value}: give a number of processes, 1 or more")
    return int(value)


def run_in_processes(module: str, program: Callable[[], None]) -> None:
    """Runs a program here, or its module in as many processes as are wanted.

    The processes say themselves what went wrong; this one ends with their exit code.

    Args:
        module: that holds the program, as ``python -m`` takes it.
        program: what it does when it is run.
    """
    with one_line_errors():
        wanted = processes_wanted()
    if wanted == 1 or is_torchelastic_launched():
        program()
        return
    # torchrun would give each process one thread; ours share all cores.
    os.environ.setdefault(
        "OMP_NUM_THREADS", str(max(1, (psutil.cpu_count(logical=False) or 1) // wanted))
    )
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=wanted,
        run_id="atlas",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        rdzv_configs={"is_host": True},
        max_restarts=0,
        logs_specs=DefaultLogsSpecs(),
        shutdown_timeout=SECONDS_TO_STOP,
    )
    # The processes say what is wrong with them; the launcher would add pages to it.
    logging.disable(logging.CRITICAL)
    try:
        with one_line_errors():
            end_with_dvc()
        elastic_launch(config, sys.executable)("-m", module)
    except SignalException:
        sys.exit(EXIT_STOPPED)
    except ChildFailedError as error:
        codes = {failure.exitcode for failure in error.failures.values()}
        stopped = codes <= {EXIT_STOPPED, -signal.SIGINT, -signal.SIGTERM}
        sys.exit(EXIT_STOPPED if stopped else EXIT_REFUSED)
