"""Map a function over tasks: in this process, in local processes, or on a cluster.

``ATLAS_PARALLEL`` chooses the workers and never changes a result: results arrive in the order of
the tasks. joblib runs them; on a cluster, every machine must see the same files under the paths in
the tasks.
"""

import hashlib
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from tqdm import tqdm

import atlas
from atlas.errors import AtlasError
from atlas.params.settings import invalid_setting, settings
from atlas.pipeline.processes import end_with_parent

Task = TypeVar("Task")
Result = TypeVar("Result")
VARIABLE = "ATLAS_PARALLEL"
PACKAGE = Path(atlas.__file__).parent
CONNECT_TIMEOUT = 10  # seconds
RAY_BATCH = 256  # tasks


def workers() -> tuple[str, str]:
    """Read ``ATLAS_PARALLEL``: joblib's backend, and the number of processes or an address."""
    value = (settings().parallel or "").strip()
    backend, _, address = value.partition(":")
    if backend in ("dask", "ray") and address:
        return backend, address
    if value and not (value.isdecimal() and int(value)):
        raise invalid_setting("parallel", value)
    return "loky", value


def in_order(
    function: Callable[[Task], Result], tasks: Sequence[Task], description: str
) -> Iterator[Result]:
    """Run ``function`` on each task and yield the results in the order of the tasks.

    The function must be defined at the top level of a module, so that it can be pickled; tasks must
    be picklable, too. A single task runs in this process, because starting workers would not pay
    off. ``description`` labels the progress bar.
    """
    backend, where = workers()
    if len(tasks) < 2 or (backend, where) == ("loky", "1"):
        results = map(function, tasks)
        yield from tqdm(results, desc=description, total=len(tasks), disable=not tasks)
        return
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    try:
        with _connected(backend, where, len(tasks)):
            found = _run_on_workers(backend, function, tasks)
            yield from tqdm(found, desc=description, total=len(tasks))
    except TerminatedWorkerError as error:
        raise AtlasError(
            f"{description}: a worker process was killed, most likely because memory ran out; run "
            f"again with fewer workers ({VARIABLE}=1): finished work is kept ({error})"
        ) from None


def _run_on_workers(
    backend: str, function: Callable[[Task], Result], tasks: Sequence[Task]
) -> Iterator[Result]:
    from joblib import Parallel, delayed

    # Ray's backend returns nothing until all tasks are done, so it gets a few at a time.
    size, return_as = (RAY_BATCH, "list") if backend == "ray" else (len(tasks), "generator")
    for start in range(0, len(tasks), size):
        yield from Parallel(return_as=return_as, batch_size=1)(
            delayed(_run)(function, task, code_version()) for task in tasks[start : start + size]
        )


def _run(function: Callable[[Task], Result], task: Task, expected: str) -> Result:
    if code_version() != expected:
        raise AtlasError(
            f"{VARIABLE}: a worker runs the code in {PACKAGE}, which differs from this "
            "checkout; start the workers with PYTHONPATH=CHECKOUT/src"
        )
    return function(task)


@cache
def code_version() -> str:
    """Hash this package's source files, which must be equal on every machine."""
    sources = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        sources.update(path.read_bytes())
    return sources.hexdigest()


@contextmanager
def _connected(backend: str, where: str, tasks: int) -> Iterator[None]:
    """Make joblib use local processes, by default one per core, or a cluster."""
    from joblib import cpu_count, parallel_config

    if backend == "loky":
        processes = min(int(where or cpu_count()), tasks)
        with parallel_config(backend, n_jobs=processes, initializer=_prepare_worker):
            yield
        return
    try:
        connection = (_dask if backend == "dask" else _ray)(where)
    except ImportError:
        message = f"{VARIABLE}: {backend} is not installed: pip install 'atlas[{backend}]'"
        raise AtlasError(message) from None
    except (OSError, ValueError) as error:
        raise AtlasError(f"{VARIABLE}={backend}:{where}: no cluster found ({error})") from None
    with connection, parallel_config(backend, n_jobs=-1):
        yield


def _dask(address: str) -> AbstractContextManager[Any]:
    from distributed import Client

    _reach(address)
    client: AbstractContextManager[Any] = Client(address, timeout=CONNECT_TIMEOUT)
    return client


def _ray(address: str) -> AbstractContextManager[Any]:
    import ray
    from ray.util.joblib import register_ray

    _reach(address)
    environment = {"env_vars": {"PYTHONPATH": str(PACKAGE.parent)}}
    context: AbstractContextManager[Any] = ray.init(
        address=address, runtime_env=environment, log_to_driver=False
    )
    register_ray()
    return context


def _reach(address: str) -> None:
    """Fail fast if nothing listens: Dask would wait for seconds, Ray for minutes."""
    url = urlsplit(address if "://" in address else f"//{address}")
    if url.hostname and url.port:
        socket.create_connection((url.hostname, url.port), timeout=CONNECT_TIMEOUT).close()


def _prepare_worker() -> None:
    """Make a worker end with its parent, and let only the parent handle Ctrl+C."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
