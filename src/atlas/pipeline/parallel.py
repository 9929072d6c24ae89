"""Maps a function over tasks: in this process, in local processes, or on a cluster.

How many work, and where, is said by ``ATLAS_PARALLEL`` and never changes a result: results come
back in the order of the tasks. joblib does the work; on a cluster the paths in the tasks must
mean the same files on every machine.
"""

import hashlib
import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

from tqdm import tqdm

import atlas
from atlas.errors import AtlasError
from atlas.pipeline.processes import end_with_parent

Task = TypeVar("Task")
Result = TypeVar("Result")
VARIABLE = "ATLAS_PARALLEL"
PACKAGE = Path(atlas.__file__).parent
SECONDS_TO_ANSWER = 10  # that a cluster has
TASKS_OF_RAY = 256


@dataclass(frozen=True)
class Engine:
    """Where tasks run: local processes (None for one a core), or a cluster at ``address``."""

    kind: Literal["processes", "dask", "ray"]
    processes: int | None = None
    address: str = ""

    @classmethod
    def from_environment(cls) -> "Engine":
        """Reads ``ATLAS_PARALLEL``: unset for all cores, a number, dask:ADDRESS or ray:ADDRESS.

        Raises:
            AtlasError: it is none of these.
        """
        value = os.environ.get(VARIABLE, "").strip()
        if not value:
            return cls("processes")
        if value.isdecimal() and int(value) > 0:
            return cls("processes", int(value))
        kind, _, address = value.partition(":")
        if kind == "dask" and address:
            return cls("dask", address=address)
        if kind == "ray" and address:
            return cls("ray", address=address)
        raise AtlasError(
            f"{VARIABLE}={value}: give a number of processes, dask:ADDRESS or ray:ADDRESS "
            "(such as dask:tcp://10.0.0.1:8786 or ray:auto)"
        )


def in_order(
    function: Callable[[Task], Result], tasks: Sequence[Task], description: str
) -> Iterator[Result]:
    """Runs ``function`` on each task, and yields the results in the order of the tasks.

    Args:
        function: a function of a module; it and its tasks travel to other processes.
        tasks: one runs in this process, as starting others would cost more than it saves.
        description: of the progress bar.

    Raises:
        AtlasError: a task raised it, a worker was killed, or the cluster is not there.
    """
    engine = Engine.from_environment()
    if len(tasks) < 2 or engine == Engine("processes", 1):
        results = map(function, tasks)
        yield from tqdm(results, desc=description, total=len(tasks), disable=not tasks)
        return
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    try:
        with _backend(engine, len(tasks)):
            yield from tqdm(_elsewhere(engine, function, tasks), desc=description, total=len(tasks))
    except TerminatedWorkerError as error:
        raise AtlasError(
            f"{description}: a worker process was killed, most likely for want of memory; run "
            f"again with fewer ({VARIABLE}=1): what was finished is kept ({error})"
        ) from None


def _elsewhere(
    engine: Engine, function: Callable[[Task], Result], tasks: Sequence[Task]
) -> Iterator[Result]:
    from joblib import Parallel, delayed

    # Ray's backend gives no result before all are there, so it gets some tasks at a time.
    together = TASKS_OF_RAY if engine.kind == "ray" else len(tasks)
    for start in range(0, len(tasks), together):
        parallel = Parallel(return_as="list" if engine.kind == "ray" else "generator", batch_size=1)
        yield from parallel(
            delayed(_run)(function, task, code_version())
            for task in tasks[start : start + together]
        )


def _run(function: Callable[[Task], Result], task: Task, expected: str) -> Result:
    if code_version() != expected:
        raise AtlasError(
            f"{VARIABLE}: a worker runs the code of {PACKAGE}, which is not that "
            "of this checkout; start the workers with PYTHONPATH=CHECKOUT/src"
        )
    return function(task)


@cache
def code_version() -> str:
    """A hash of this package's sources: a worker on another machine must have the same."""
    sources = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        sources.update(path.read_bytes())
    return sources.hexdigest()


def _backend(engine: Engine, tasks: int) -> AbstractContextManager[Any]:
    from joblib import cpu_count, parallel_config

    if engine.kind == "dask":
        return _dask(engine.address)
    if engine.kind == "ray":
        return _ray(engine.address)
    processes = min(engine.processes or cpu_count(), tasks)
    local: AbstractContextManager[Any] = parallel_config(
        "loky", n_jobs=processes, initializer=_prepare_worker
    )
    return local


@contextmanager
def _dask(address: str) -> Iterator[None]:
    try:
        from distributed import Client
        from joblib import parallel_config

        _reach(address)
        client = Client(address, timeout=SECONDS_TO_ANSWER)
    except ImportError:
        raise AtlasError(f"{VARIABLE}: dask is not installed: pip install 'atlas[dask]'") from None
    except (OSError, ValueError) as error:
        raise AtlasError(f"{VARIABLE}=dask:{address}: no scheduler there ({error})") from None
    with client, parallel_config("dask", n_jobs=-1):
        yield


@contextmanager
def _ray(address: str) -> Iterator[None]:
    try:
        import ray
        from joblib import parallel_config
        from ray.util.joblib import register_ray
    except ImportError:
        raise AtlasError(f"{VARIABLE}: ray is not installed: pip install 'atlas[ray]'") from None
    try:
        _reach(address)
        environment = {"env_vars": {"PYTHONPATH": str(PACKAGE.parent)}}
        ray.init(address=address, runtime_env=environment, log_to_driver=False)
    except (OSError, ValueError) as error:
        raise AtlasError(f"{VARIABLE}=ray:{address}: no cluster there ({error})") from None
    register_ray()
    try:
        with parallel_config("ray", n_jobs=-1):
            yield
    finally:
        ray.shutdown()


def _reach(address: str) -> None:
    """Knocks at the door: where nobody is, Dask would wait for seconds and Ray for minutes."""
    place = urlsplit(address if "://" in address else f"//{address}")
    if place.hostname and place.port:
        socket.create_connection((place.hostname, place.port), timeout=SECONDS_TO_ANSWER).close()


def _prepare_worker() -> None:
    """A worker ends with its parent, and leaves Ctrl+C to it."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
