"""``atlas study``: run the missing experiments of a study, one after the other.

Each run is one ``dvc exp run --temp``: DVC copies the project to a temporary folder, runs the
pipeline there, and keeps the result as an experiment. Experiments queued by other people are left
alone.
"""

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from atlas.errors import AtlasError, Stopped, one_line
from atlas.tools.console import print_table
from atlas.tools.studies.results import LOGS, RunResult, log_of, read_result, write_page
from atlas.tools.studies.study import Snapshot, Study, StudyRun, available, load_study

LOCK = Path(".ckpt/study.lock")
CURRENT_LOG = LOGS / "current.log"
FIRST_STAGE = b"tage '"  # "Running stage 'fetch'" or "Stage 'fetch' didn't change"
POLL_SECONDS = 0.1
EDITED = "params, code or data were edited while the study ran"


def list_studies(root: Path) -> None:
    """Print the studies of a project with their progress and questions."""
    rows: list[tuple[str, str, str]] = []
    finished, snapshot = finished_experiments(root), Snapshot(root)
    for name in available(root):
        try:
            study = load_study(root, name, snapshot)
        except AtlasError as error:  # list the others all the same
            rows.append((name, "invalid", str(error)))
            continue
        done = sum(run.name in finished for run in study.runs)
        rows.append((name, f"{done} of {len(study.runs)}", one_line(study.spec.question)))
    print_table(("study", "done", "question"), rows)


def write_study(root: Path, name: str) -> None:
    """Write the table, plot and page of a study from its finished runs."""
    study = load_study(root, name)
    results = _read_results(root, study)
    if all(result.state != "done" for result in results):
        raise AtlasError(
            f"study {name}: no run in this repository has the current params, code and "
            f"data; its page is unchanged. Run `atlas study {name}`"
        )
    print(f"wrote {write_page(root, study, results)}")


def run_study(root: Path, name: str) -> None:
    """Run the missing runs of a study, then write its table, plot and page."""
    if not str(root).isascii():
        raise AtlasError(
            f"{root}: DVC cannot run experiments if the path contains non-ASCII "
            "characters; move or clone the project, for example to ~/atlas"
        )
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores SIGHUP
            signal.signal(number, signal.default_int_handler)
    study = load_study(root, name)
    problem: KeyboardInterrupt | AtlasError | None = None
    with _lock(root) as lock:
        try:
            _run_missing(root, study, lock)
        except (KeyboardInterrupt, AtlasError) as error:
            problem = error
        results = _read_results(root, study)
        done = sum(result.state == "done" for result in results)
        if done or not problem:  # otherwise the page stays as it is
            print(f"wrote {write_page(root, study, results)}")
    if isinstance(problem, KeyboardInterrupt):
        raise Stopped(
            f"stopped: {done} of {len(study.runs)} runs are done; `atlas study {name}` resumes"
        )
    if problem:
        raise problem
    if failed := [result.run.name for result in results if result.state != "done"]:
        raise AtlasError(
            f"{len(failed)} of {len(study.runs)} runs failed: {', '.join(failed)}; see "
            f"{log_of(failed[0])}. `atlas study {name}` retries"
        )


def finished_experiments(root: Path) -> set[str]:
    """Return the names of all experiments in the repository."""
    return set(_dvc(root, "exp", "list", "--all-commits", "--name-only").splitlines())


def _run_missing(root: Path, study: Study, lock: IO[bytes]) -> None:
    """Run unfinished experiments; print one line of progress for each."""
    total, finished = len(study.runs), finished_experiments(root)
    missing = [run for run in study.runs if run.name not in finished]
    print(f"{study.name}: {total} runs, {total - len(missing)} done", flush=True)
    if missing:
        print(f"`tail -f {CURRENT_LOG}` follows the current run, Ctrl+C stops it", flush=True)
    for position, run in enumerate(missing, total - len(missing) + 1):
        snapshot = Snapshot(root)
        if load_study(root, study.name, snapshot).runs != study.runs:
            raise AtlasError(f"{EDITED}; `atlas study {study.name}` starts over with the new ones")
        started = time.monotonic()
        if _run_experiment(root, run, snapshot, lock):
            finished.add(run.name)
        result = read_result(root, study, run, finished)
        values = [f"{key.split('.')[-1]} {value:.4g}" for key, value in result.measures.items()]
        outcome = ", ".join(values) if result.state == "done" else f"failed: {result.reason}"
        seconds = time.monotonic() - started
        print(f"[{position}/{total}] {run.name}: {outcome} ({seconds:.0f} s)", flush=True)


def _read_results(root: Path, study: Study) -> list[RunResult]:
    finished = finished_experiments(root)
    return [read_result(root, study, run, finished) for run in study.runs]


def _run_experiment(root: Path, run: StudyRun, snapshot: Snapshot, lock: IO[bytes]) -> bool:
    """Run one experiment and return True if it succeeds; its output goes to its log.

    DVC holds the lock as well: if this process is killed, no second study starts before DVC ends.
    """
    command = [sys.executable, "-m", "dvc", "exp", "run", "--temp", "--name", run.name]
    command += [part for override in run.overrides for part in ("-S", override)]
    current = root / CURRENT_LOG
    current.parent.mkdir(parents=True, exist_ok=True)
    with _process_group() as group, current.open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=root,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            process_group=group,
            pass_fds=[lock.fileno()],
        )
        try:
            is_done = process.wait() == 0
        except KeyboardInterrupt:
            print(f"stopping {run.name}; it will resume from its checkpoint", flush=True)
            _interrupt(process, group, current)
            raise
        if is_done and not snapshot.matches(run.name, run.params):
            _dvc(root, "exp", "remove", run.name)
            log.write(f"\nerror: {EDITED}, so this result was not kept\n".encode())
            is_done = False
    current.replace(root / log_of(run.name))
    return is_done


def _interrupt(process: subprocess.Popen[bytes], group: int, log: Path) -> None:
    """Interrupt DVC and its stage, and wait until both have cleaned up.

    DVC leaves its copy of the project behind if it is interrupted while making it, so wait until
    its first stage is named. A second Ctrl+C kills both.
    """
    try:
        while process.poll() is None and FIRST_STAGE not in log.read_bytes():
            time.sleep(POLL_SECONDS)
        os.killpg(group, signal.SIGINT)
        process.wait()
    except KeyboardInterrupt:
        os.killpg(group, signal.SIGKILL)
        process.wait()


@contextmanager
def _process_group() -> Iterator[int]:
    """Open a process group that is interrupted, as by Ctrl+C, when this process dies.

    Its leader is a shell that waits for the end of its standard input, which this process alone
    holds open.
    """
    leader = subprocess.Popen(
        ["sh", "-c", "trap '' INT; read -r _; kill -INT 0"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        process_group=0,
    )
    try:
        yield leader.pid
    finally:
        leader.communicate()


@contextmanager
def _lock(root: Path) -> Iterator[IO[bytes]]:
    """Hold the lock that allows only one study at a time."""
    (root / LOCK).parent.mkdir(exist_ok=True)
    with (root / LOCK).open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AtlasError(
                f"{LOCK}: a study is running in this folder; wait until it ends, or stop it"
            ) from None
        yield lock


def _dvc(root: Path, *arguments: str) -> str:
    """Run a DVC command and return its output."""
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, cwd=root, env=_environment(), capture_output=True, text=True)
    if done.returncode:
        raise AtlasError(f"dvc {' '.join(arguments[:2])}: {one_line(done.stderr)}")
    return done.stdout


def _environment() -> dict[str, str]:
    """Return this environment with this Python first on PATH, for the commands of the stages."""
    folder = Path(sys.executable).parent
    return os.environ | {"PATH": f"{folder}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
