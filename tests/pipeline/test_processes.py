"""Processes end with their parent: real processes, really killed."""

import contextlib
import os
import subprocess
import sys

import psutil
import pytest

from atlas.pipeline.processes import threads

CHILD = """
import os, signal
from atlas.errors import one_line_errors
from atlas.pipeline.processes import end_with_dvc, end_with_parent
with one_line_errors():
    {}
print(os.getpid(), flush=True)
signal.pause()
"""
END_WITH_DVC = "end_with_dvc(lambda: None)"
STARTER = "import os, shlex, subprocess; subprocess.run(shlex.split(os.environ['COMMAND']))"
STAYING_SHELL = "import shlex, subprocess, sys; subprocess.run(shlex.split(sys.argv[-1]))"
THE_CHILD = f"{sys.executable} -m child"


@pytest.fixture
def start(tmp_path):
    """Start a command from a new process; return that process and the child."""
    (tmp_path / "starter.py").write_text(STARTER)
    (tmp_path / "shell.py").write_text(STAYING_SHELL)
    started = []

    def start(function: str, command: str, **environment: str):
        (tmp_path / "child.py").write_text(CHILD.format(function))
        python_path = os.pathsep.join([str(tmp_path), *sys.path])
        starter = subprocess.Popen(
            [sys.executable, "starter.py"],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": python_path, "COMMAND": command} | environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert starter.stdout is not None
        child = psutil.Process(int(starter.stdout.readline()))
        started.extend([starter, child])
        return starter, child

    yield start
    for process in started:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def ends(child: psutil.Process, seconds: float) -> bool:
    return not psutil.wait_procs([child], timeout=seconds)[1]


@pytest.mark.parametrize("reaped", [True, False])
def test_a_process_ends_with_its_parent(start, reaped):
    starter, child = start("end_with_parent()", THE_CHILD)
    starter.kill()
    if reaped:
        starter.wait()
    assert ends(child, 30)


@pytest.mark.parametrize(
    "shell", ["", "/bin/sh -c", "/bin/bash -c", f"{sys.executable} shell.py -c"]
)
def test_a_stage_ends_with_dvc_whatever_shell_is_between(start, shell):
    command = f"{shell} '{THE_CHILD}'" if shell else THE_CHILD
    dvc, child = start(END_WITH_DVC, command, DVC_STAGE="train")
    dvc.kill()
    dvc.wait()
    assert ends(child, 30)


def test_a_stage_runs_as_long_as_dvc(start):
    _, child = start(END_WITH_DVC, f"/bin/sh -c '{THE_CHILD}'", DVC_STAGE="train")
    assert not ends(child, 1)


def test_a_stage_started_by_hand_keeps_running(start, monkeypatch):
    monkeypatch.delenv("DVC_STAGE", raising=False)
    starter, child = start(END_WITH_DVC, THE_CHILD)
    starter.kill()
    starter.wait()
    assert not ends(child, 1)


def test_a_stage_whose_dvc_is_gone_already_does_not_start(tmp_path):
    """DVC was killed while Python was starting."""
    (tmp_path / "child.py").write_text("import time; time.sleep(1)" + CHILD.format(END_WITH_DVC))
    starter = subprocess.run(
        f"{THE_CHILD} 2> said & exit",
        shell=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "DVC_STAGE": "train"},
        stdout=subprocess.PIPE,
        start_new_session=True,
        timeout=60,
    )
    assert starter.stdout == b""
    said = (tmp_path / "said").read_text()
    assert "the process that started this one has ended; run `dvc repro` again" in said


@pytest.mark.parametrize(
    ("value", "expected"),
    [("3", 3), ("", os.cpu_count()), ("0", os.cpu_count()), ("2,1", os.cpu_count())],
)
def test_threads_are_those_of_pytorch_or_a_core_each(monkeypatch, value, expected):
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert threads() == expected
