"""A study, run by DVC from beginning to end, stopped in the middle and gone on with."""

import signal
import subprocess
import time

import psutil
import pytest
import yaml

from tests.pipeline.checkout import Checkout

pytestmark = pytest.mark.slow

COMMAND = ("atlas", "study", "sizes")
PIECES = {"fits": 400, "too large": 30_000}  # the text has fewer: it fails at run time


@pytest.fixture
def checkout(finished, tmp_path) -> Checkout:
    """A project with a study of two runs, of which the second one fails."""
    copy = finished.copy(tmp_path / "project")
    copy.git("add", "-f", "data/own")  # experiments run in copies of what git knows
    study = {
        "question": "How many pieces?",
        "set": {"train.steps": 300, "export.formats": []},
        "vary": [{"tokenizer.vocab_size": size, "label": key} for key, size in PIECES.items()],
        "seeds": [1],
        "measures": ["evaluate.val_loss", "evaluate.not_measured"],
        "scale": "category",
    }
    (copy.root / "studies/sizes.yaml").write_text(yaml.safe_dump(study))
    return copy


def start_and_wait_for_training(checkout: Checkout) -> subprocess.Popen[str]:
    """Starts the study; returns when its first run has written a checkpoint."""
    process = checkout.start(*COMMAND, ATLAS_CHECKPOINT_SECONDS="0")
    deadline = time.monotonic() + 120
    while not list((checkout.root / ".ckpt/train").glob("*/step-*")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


def processes(checkout: Checkout) -> list[list[str]]:
    """What runs in the project or in DVC's copies of it."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd().startswith(str(checkout.root)) and process.pid != psutil.Process().pid:
                found.append(process.cmdline())
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def wait_until_gone(checkout: Checkout) -> None:
    deadline = time.monotonic() + 60
    while left := processes(checkout):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def queued(checkout: Checkout) -> list[tuple[str, str]]:
    """Name and state of what is in the queue, without what has succeeded."""
    lines = [line.split() for line in checkout.dvc("queue", "status").splitlines()]
    names = [(line[1], line[-1]) for line in lines if len(line) > 3 and "sizes_" in line[1]]
    return [(name[:-9], state) for name, state in names if state != "Success"]


def test_a_study_is_stopped_gone_on_with_and_written_down(checkout):
    process = start_and_wait_for_training(checkout)
    process.send_signal(signal.SIGINT)
    printed = process.communicate(timeout=60)[0]
    assert process.returncode == 130, printed
    assert "stopped: 0 of 2 runs are done" in printed
    assert processes(checkout) == []
    assert queued(checkout) == [("sizes_too-large_s1", "Queued")]
    assert list((checkout.root / ".ckpt/train").glob("*/step-*"))

    printed = checkout.run(*COMMAND, check=False)
    assert "sizes: 2 runs, 0 done" in printed
    assert "sizes_too-large_s1" in printed
    assert "failed: tokenizer.vocab_size is 30000" in printed
    assert "error: 1 of 2 runs failed: sizes_too-large_s1_" in printed
    assert processes(checkout) == []
    (name,) = {word.strip(":") for word in printed.split() if word.startswith("sizes_fits")}
    log = checkout.dvc("queue", "logs", name)
    assert "going on from step" in log
    page = (checkout.root / "docs/studies/sizes.md").read_text()
    assert "| fits | 400 | " in page
    assert "| too large | 30000 |  |  | 0 of 1, 1 failed: tokenizer.vocab_size is 30000" in page
    assert (checkout.root / "docs/studies/sizes.svg").read_text().startswith("<?xml")


def test_a_killed_study_leaves_nothing_running_and_goes_on_also_after_a_commit(checkout):
    process = start_and_wait_for_training(checkout)
    process.kill()
    process.communicate(timeout=60)
    wait_until_gone(checkout)
    assert ("sizes_too-large_s1", "Queued") in queued(checkout)
    assert "sizes_fits" in checkout.run(*COMMAND, check=False)
    assert queued(checkout) == [("sizes_too-large_s1", "Failed")]

    checkout.git("add", "-A")
    checkout.git("commit", "-qm", "What was found")

    printed = checkout.run(*COMMAND, check=False)  # what failed is tried again, and it alone
    assert "sizes: 2 runs, 1 done" in printed
    assert "sizes_fits" not in printed
    assert checkout.git("status", "--short") == ""
    assert "1 of 2" in checkout.run("atlas", "study")


def test_what_a_killed_worker_left_is_cleared_away(checkout):
    process = start_and_wait_for_training(checkout)
    for child in psutil.Process(process.pid).children():
        child.kill()  # the worker
    process.kill()
    process.communicate(timeout=60)
    assert ("sizes_fits_s1", "Running") in queued(checkout)
    printed = checkout.run(*COMMAND, check=False)
    assert "[1/2] sizes_" in printed
    assert "[2/2] sizes_" in printed
    assert queued(checkout) == [("sizes_too-large_s1", "Failed")]
    assert processes(checkout) == []
    assert not list((checkout.root / ".dvc/tmp/exps").glob("tmp*"))
    assert "sizes_fits" in checkout.dvc("exp", "show", "--csv")
