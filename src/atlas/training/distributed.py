"""Train one model in several processes: torchrun, DDP and FSDP2.

    ATLAS_NPROC=2 dvc repro train

The stage starts itself that many times with torchrun's launcher. If you start it with torchrun, on
one machine or many, it joins that run instead.

Every process runs the same program on its own rows of each batch; process 0 writes. DDP keeps the
whole model in each process. FSDP2 keeps a shard of each weight and gathers one block at a time
(arXiv:2304.11277).
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
from atlas.params.settings import settings
from atlas.pipeline.processes import end_with_dvc
from atlas.pipeline.restore import reattach_head
from atlas.tokens.windows import NO_TARGET, TokenBatch

TIMEOUT = timedelta(minutes=30)  # another process may be writing a checkpoint or compiling
SECONDS_TO_STOP = 600  # for a last step and a checkpoint; torchrun allows 30


@dataclass(frozen=True)
class DistributedContext:
    """One process's view of all processes of a training run."""

    device: torch.device
    rank: int = 0  # number of this process
    size: int = 1  # number of processes
    strategy: str = "ddp"  # or "fsdp"; unused in a single process

    @property
    def is_main(self) -> bool:
        """True in the process that writes and prints."""
        return self.rank == 0

    @property
    def is_sharded(self) -> bool:
        """True if each process holds only a shard of the weights."""
        return self.size > 1 and self.strategy == "fsdp"

    def wrap(self, loss: nn.Module, model: nn.Module, blocks: list[nn.Module]) -> nn.Module:
        """Make the copies of a model in all processes train as one; return the module to call.

        ``loss`` contains ``model``, which contains ``blocks``; FSDP2 gathers those one by one.
        """
        if self.size == 1:
            return loss
        if self.strategy == "fsdp":
            mesh = init_device_mesh(self.device.type, (self.size,))
            for module in [*blocks, model]:
                fully_shard(module, mesh=mesh)
            return loss
        device_ids = [self.device] if self.device.type != "cpu" else None
        # Buffers are constant tables that every process has computed; there is nothing to sync.
        return DistributedDataParallel(
            loss, device_ids=device_ids, gradient_as_bucket_view=True, forward_sync_buffers=False
        )

    @contextmanager
    def gradient_sync(self, loss: nn.Module, model: nn.Module, enabled: bool) -> Iterator[None]:
        """Send gradients between processes only if enabled: for the last micro-batch of a step."""
        if isinstance(model, FSDPModule):
            model.set_requires_gradient_sync(enabled)
            yield
        elif isinstance(loss, DistributedDataParallel) and not enabled:
            with loss.no_sync():
                yield
        else:
            yield

    def all_reduce(self, values: Tensor) -> Tensor:
        """Sum a tensor over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def sum(self, *values: float) -> list[float]:
        """Sum each number over all processes."""
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        total: list[float] = self.all_reduce(tensor).tolist()
        return total

    def any(self, value: bool) -> bool:
        """True if the value is true in any process."""
        return self.sum(value)[0] > 0

    def split_batches(self, batches: Iterable[TokenBatch[Any]]) -> Iterator[TokenBatch[Any]]:
        """Yield this process's rows of each batch.

        A process without rows gets one row without targets, because FSDP2 needs every process to
        call the model the same number of times.
        """
        for batch in batches:
            own = batch.rows(slice(self.rank, None, self.size))
            if not len(own.inputs):
                first = batch.rows(slice(1))
                own = first._replace(targets=np.full_like(first.targets, NO_TARGET))
            yield own

    def local_rows(self, batch_size: int) -> slice:
        """The rows of a batch that this process computes."""
        if batch_size % self.size:
            raise AtlasError(
                f"train.batch_size ({batch_size}) is not divisible by the {self.size} processes: "
                f"use {batch_size + self.size - batch_size % self.size}, or another ATLAS_NPROC"
            )
        rows = batch_size // self.size
        return slice(self.rank * rows, (self.rank + 1) * rows)


@contextmanager
def distributed_context(device: torch.device) -> Iterator[DistributedContext]:
    """Join the processes that torchrun started; without torchrun, a single process."""
    strategy = settings().strategy
    if not dist.is_torchelastic_launched():
        yield DistributedContext(device)
        return
    backend = "nccl" if device.type == "cuda" else "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(backend, timeout=TIMEOUT)
    try:
        yield DistributedContext(device, dist.get_rank(), dist.get_world_size(), strategy)
    except BaseException as error:
        # Drop the variables of the error's frames, which keep DDP alive. If DDP is the last to hold
        # gloo's threads, it waits for them while they wait for the interpreter lock that it holds,
        # and the process never ends (pytorch/pytorch#190489).
        cause: BaseException | None = error
        while cause is not None:
            traceback.clear_frames(cause.__traceback__)
            cause = cause.__context__
        raise
    finally:
        gc.collect()
        dist.destroy_process_group()


def launch(module: str, program: Callable[[], None]) -> None:
    """Run a program in this process, or start ``python -m module`` in ``ATLAS_NPROC`` processes.

    The processes print their own errors; this one ends with their exit code.
    """
    with one_line_errors():
        processes = settings().nproc
    if processes == 1 or is_torchelastic_launched():
        program()
        return
    # torchrun's default is one thread per process; here they share all cores.
    cores = psutil.cpu_count(logical=False) or 1
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // processes)))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id="atlas",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        rdzv_configs={"is_host": True},
        max_restarts=0,
        logs_specs=DefaultLogsSpecs(),
        shutdown_timeout=SECONDS_TO_STOP,
    )
    logging.disable(logging.CRITICAL)  # the launcher would add pages to the one line of an error
    try:
        with one_line_errors():
            end_with_dvc(reattach_head)
        elastic_launch(config, sys.executable)("-m", module)
    except SignalException:
        sys.exit(EXIT_STOPPED)
    except ChildFailedError as error:
        codes = {failure.exitcode for failure in error.failures.values()}
        stopped = codes <= {EXIT_STOPPED, -signal.SIGINT, -signal.SIGTERM}
        sys.exit(EXIT_STOPPED if stopped else EXIT_REFUSED)
