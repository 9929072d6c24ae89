import os
import signal
import subprocess
import sys

import psutil
import pytest

from atlas.errors import AtlasError
from atlas.pipeline import parallel
from atlas.pipeline.parallel import in_order


def square(number):
    return number * number


def process_id(_):
    return os.getpid()


def refuse(number):
    if number == 2:
        raise AtlasError("number 2: not wanted; leave it out")
    return number


def die(number):
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.parametrize(
    ("value", "engine"),
    [
        ("", ("loky", "")),
        ("3", ("loky", "3")),
        ("dask:tcp://10.0.0.1:8786", ("dask", "tcp://10.0.0.1:8786")),
        ("ray:auto", ("ray", "auto")),
    ],
)
def test_the_environment_names_the_engine(monkeypatch, value, engine):
    monkeypatch.setenv("ATLAS_PARALLEL", value)
    assert parallel.workers() == engine


@pytest.mark.parametrize("value", ["0", "-1", "two", "dask", "dask:", "spark:x"])
def test_anything_else_is_refused(monkeypatch, value):
    monkeypatch.setenv("ATLAS_PARALLEL", value)
    with pytest.raises(AtlasError, match=f"ATLAS_PARALLEL={value}: must be a number"):
        list(in_order(square, [1, 2], "x"))


@pytest.mark.parametrize("processes", ["1", "2"])
def test_results_come_in_order(monkeypatch, processes):
    monkeypatch.setenv("ATLAS_PARALLEL", processes)
    assert list(in_order(square, range(20), "x")) == [number**2 for number in range(20)]
    assert list(in_order(square, [], "x")) == []


def test_one_task_starts_no_process(monkeypatch):
    monkeypatch.setenv("ATLAS_PARALLEL", "2")
    assert list(in_order(process_id, [1], "x")) == [os.getpid()]
    assert os.getpid() not in set(in_order(process_id, [1, 2, 3], "x"))


@pytest.mark.parametrize("processes", ["1", "2"])
def test_an_error_of_a_task_arrives(monkeypatch, processes):
    monkeypatch.setenv("ATLAS_PARALLEL", processes)
    with pytest.raises(AtlasError, match="number 2: not wanted"):
        list(in_order(refuse, range(5), "x"))


def test_a_killed_worker_is_one_line(monkeypatch):
    monkeypatch.setenv("ATLAS_PARALLEL", "2")
    with pytest.raises(AtlasError, match=r"x: a worker process was killed.*ATLAS_PARALLEL=1"):
        list(in_order(die, range(5), "x"))


def test_a_worker_with_other_code_is_refused(monkeypatch):
    monkeypatch.setenv("ATLAS_PARALLEL", "2")
    monkeypatch.setattr(parallel, "code_version", lambda: "other")
    with pytest.raises(AtlasError, match="a worker runs the code in"):
        list(in_order(square, range(5), "x"))


@pytest.mark.parametrize("engine", ["dask:tcp://127.0.0.1:9", "ray:127.0.0.1:9"])
def test_a_missing_cluster_is_one_line(monkeypatch, engine):
    pytest.importorskip("distributed" if engine.startswith("dask") else "ray")
    monkeypatch.setenv("ATLAS_PARALLEL", engine)
    with pytest.raises(AtlasError, match=f"ATLAS_PARALLEL={engine}: no "):
        list(in_order(square, range(5), "x"))


@pytest.mark.slow
def test_workers_end_with_the_process_that_started_them():
    code = (
        "from atlas.pipeline.parallel import in_order\n"
        "from tests.pipeline.test_parallel import wait\n"
        "list(in_order(wait, [1, 2], 'x'))"
    )
    environment = os.environ | {"ATLAS_PARALLEL": "2", "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    workers = [psutil.Process(int(process.stdout.readline())) for _ in range(2)]
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive


def wait(_):
    print(os.getpid(), flush=True)
    signal.pause()
