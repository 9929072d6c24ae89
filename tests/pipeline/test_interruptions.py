"""Runs that are stopped, killed or disturbed in the middle."""

import os
import signal
import subprocess
import time

import pandas as pd
import psutil
import pytest

from atlas.pipeline.processes import POLL_SECONDS
from tests.pipeline.checkout import Checkout, stages_run
from tests.pipeline.kills import STEPS_PER_KILL, disturb, results

NEW = {"train.lr": 5e-3}  # a run whose results are in no cache


@pytest.fixture
def checkout(checkout) -> Checkout:
    checkout.set(**NEW)
    return checkout


@pytest.fixture(scope="module")
def undisturbed(finished, tmp_path_factory) -> Checkout:
    """Return an uninterrupted run, to compare the interrupted ones with."""
    copy = finished.copy(tmp_path_factory.mktemp("undisturbed") / "project")
    copy.set(**NEW)
    assert stages_run(copy.dvc("repro", "train")) == ["train"]
    return copy


def interrupt(
    checkout: Checkout,
    kill,
    step: int = 10,
    command: tuple[str, ...] = ("repro", "train"),
    **environment: str,
) -> str:
    """Start a training and interrupt it in the middle; return its output.

    The progress bar of each step goes into a small pipe that is read only after the kill, so the
    training blocks in the middle, however slow the machine is.
    """
    process = checkout.start(
        "dvc",
        *command,
        pipesize=4096,
        ATLAS_CHECKPOINT_SECONDS="0",
        TQDM_MININTERVAL="0",
        **environment,
    )
    deadline = time.monotonic() + 120
    while not any(checkout_step >= step for checkout_step in checkpointed(checkout)):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    kill(process)
    printed = process.communicate(timeout=60)[0]
    assert process.returncode != 0, printed
    wait_until_gone(checkout)
    return printed


def kill_launcher(process: subprocess.Popen) -> None:
    """Kill the training process that started the others."""
    children = psutil.Process(process.pid).children(recursive=True)
    trainers = [child for child in children if "stages.train" in child.cmdline()]
    pids = {child.pid for child in trainers}
    (launcher,) = (child for child in trainers if child.ppid() not in pids)
    assert len(trainers) == 3
    launcher.kill()


def checkpointed(checkout: Checkout) -> list[int]:
    folders = (checkout.root / ".ckpt/train").glob("*/step-*")
    return [int(folder.name.removeprefix("step-")) for folder in folders]


def trainers(checkout: Checkout) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        try:
            if "stages.train" in process.info["cmdline"] and process.cwd() == str(checkout.root):
                found.append(process)
        except (psutil.Error, TypeError):
            continue
    return found


def wait_until_gone(checkout: Checkout) -> None:
    _, alive = psutil.wait_procs(trainers(checkout), timeout=30)
    assert not alive, "the trainer outlived dvc"


def kill_trainer(process: subprocess.Popen) -> None:
    children = psutil.Process(process.pid).children(recursive=True)
    (trainer,) = (child for child in children if "stages.train" in child.cmdline())
    trainer.kill()


def kill_dvc(process: subprocess.Popen) -> None:
    process.kill()
    process.wait()
    time.sleep(5 * POLL_SECONDS)  # until the trainer has noticed


def terminate_dvc(process: subprocess.Popen) -> None:
    process.terminate()
    process.wait()
    time.sleep(5 * POLL_SECONDS)


def terminate_group(process: subprocess.Popen) -> None:
    os.killpg(process.pid, signal.SIGTERM)


def hang_up(process: subprocess.Popen) -> None:
    os.killpg(process.pid, signal.SIGHUP)  # the terminal was closed


def press_ctrl_c(process: subprocess.Popen) -> None:
    os.killpg(process.pid, signal.SIGINT)  # a terminal signals the whole group


@pytest.mark.very_slow
@pytest.mark.parametrize(
    ("kill", "shell"),
    [
        (kill_trainer, "/bin/bash"),
        (kill_dvc, "/bin/bash"),
        (kill_dvc, "/bin/sh"),  # dash stays between dvc and the trainer; bash does not
        (press_ctrl_c, "/bin/sh"),
    ],
)
def test_an_interrupted_training_resumes_and_ends_the_same(
    checkout, undisturbed, kill, shell, monkeypatch
):
    monkeypatch.setenv("SHELL", shell)
    interrupt(checkout, kill)
    assert max(checkpointed(checkout)) < 120
    printed = checkout.dvc("repro", "train")
    assert stages_run(printed) == ["train"]
    assert "continuing from step" in printed
    assert checkout.hashes() == undisturbed.hashes()
    assert not checkpointed(checkout)


@pytest.mark.very_slow
@pytest.mark.parametrize(
    ("kill", "strategy"),
    [(kill_dvc, "ddp"), (kill_launcher, "ddp"), (press_ctrl_c, "ddp"), (press_ctrl_c, "fsdp")],
)
def test_two_interrupted_processes_resume_and_end_the_same(checkout, undisturbed, kill, strategy):
    printed = interrupt(checkout, kill, ATLAS_NPROC="2", ATLAS_STRATEGY=strategy)
    assert printed.count("stopped after step") == 1
    assert "Traceback" not in printed
    assert "continuing from step" in checkout.dvc("repro", "train", ATLAS_NPROC="2")
    found, expected = (
        pd.read_csv(each.root / "metrics/val.csv")["loss"] for each in (checkout, undisturbed)
    )
    assert found.tolist() == pytest.approx(expected.tolist(), abs=1e-5)


@pytest.mark.very_slow
def test_a_training_killed_three_times_ends_the_same(finished, tmp_path):
    whole = finished.copy(tmp_path / "whole")
    steps = 3 * STEPS_PER_KILL
    whole.set(**{"train.steps": steps, "train.eval_every": 50})
    disturbed = whole.copy(tmp_path / "disturbed")
    whole.dvc("repro", "train")
    reached = disturb(disturbed, 3, seed=1, number=signal.SIGKILL)
    assert 0 < reached[0] < reached[1] < reached[2] < steps
    disturbed.dvc("repro", "train")
    assert results(disturbed) == results(whole)


def test_ctrl_c_is_one_line(checkout):
    printed = interrupt(checkout, press_ctrl_c)
    assert "stopped after step" in printed
    assert "Traceback" not in printed


@pytest.mark.slow
@pytest.mark.parametrize(
    "kill",
    [kill_dvc]
    + [
        pytest.param(each, marks=pytest.mark.very_slow)
        for each in (terminate_dvc, terminate_group, hang_up, kill_trainer)
    ],
)
def test_a_stopped_experiment_keeps_the_model_and_the_branch(finished, tmp_path, kill):
    checkout = finished.copy(tmp_path / "project")
    (checkout.root / "presets/char.yaml").write_text("# edited\n")
    interrupt(checkout, kill, command=("exp", "run", "-S", "train.lr=5e-3"))
    if kill is kill_trainer:  # by SIGKILL: the documented way back
        checkout.git("checkout", "HEAD", "params.yaml", "metrics")
        checkout.dvc("checkout")
    status = checkout.git("status", "--short", "--branch").splitlines()
    assert status[0] == "## main"
    assert " M presets/char.yaml" in status
    assert not [line for line in status if line.endswith("metrics")]
    checkout.git("checkout", "HEAD", "params.yaml")
    *_, last = checkout.dvc("status").splitlines()  # after a warning about the killed process
    assert last == "Data and pipelines are up to date."


@pytest.mark.very_slow
def test_training_starts_over_with_another_param(checkout, tmp_path):
    other = checkout.copy(tmp_path / "other")
    interrupt(checkout, kill_trainer)
    for each in (checkout, other):
        each.set(**{"train.lr": 1e-3})
        printed = each.dvc("repro", "train")
        assert "continuing from step" not in printed
    assert checkout.hashes() == other.hashes()


@pytest.mark.slow
def test_code_changed_during_a_run_does_not_become_its_record(checkout):
    code = checkout.root / "src/atlas/model/layers.py"

    def edit(_process):
        code.write_text(code.read_text() + "\n# edited while training\n")

    printed = interrupt(checkout, edit)
    assert "src/atlas/model/layers.py changed while the stage ran" in printed
    assert "the former outputs are back" in printed
    assert checkout.git("status", "--short", "metrics") == ""


@pytest.mark.very_slow
def test_two_trainings_at_once_take_turns(checkout, undisturbed):
    command = ("python", "-m", "stages.train")
    both = [checkout.start(*command) for _ in range(2)]
    printed = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], printed
    checkout.dvc("commit", "--force", "train")
    assert checkout.hashes() == undisturbed.hashes()
    assert not list((checkout.root / ".ckpt").rglob("*.lock"))
