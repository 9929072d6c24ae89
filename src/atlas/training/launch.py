"""One training in several processes of this machine: ``ATLAS_NPROC``.

    ATLAS_NPROC=2 dvc repro train

The stage starts itself that many times under torchrun's own launcher. Under a torchrun that someone
else has started, on one machine or on many, there is nothing to launch.
"""

import logging
import os
import signal
import sys
from collections.abc import Callable

import psutil
from torch.distributed import is_torchelastic_launched
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from atlas.errors import EXIT_REFUSED, EXIT_STOPPED, AtlasError, one_line_errors
from atlas.processes import end_with_dvc

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
