"""A study run by DVC: interrupted, killed, resumed, and written to its page."""

import signal
import subprocess
import time

import psutil
import pytest
import yaml

from tests.pipeline.checkout import Checkout

pytestmark = pytest.mark.very_slow

COMMAND = ("atlas", "study", "sizes")
VOCAB_SIZES = {"fits": 400, "too large": 30_000}  # more than the text has pieces: the stage fails


@pytest.fixture
def checkout(finished, tmp_path) -> Checkout:
    """A project with a study of two runs; the second fails.

    It holds what a study has to leave alone: edits that are not committed, and a queued experiment.
    """
    copy = finished.copy(tmp_path / "project")
    copy.seconds = 900
    copy.git("add", "-f", "data/own")  # experiments run in copies of what git tracks
    copy.dvc("exp", "run", "--queue", "--name", "theirs", "-S", "train.steps=10")
    study = {
        "question": "How many pieces?",
        "set": {"train.steps": 300, "export.formats": []},
        "vary": [{"tokenizer.vocab_size": size, "label": key} for key, size in VOCAB_SIZES.items()],
        "seeds": [1],
        "measures": ["evaluate.val_loss", "evaluate.not_measured"],
        "scale": "category",
    }
    (copy.root / "studies/sizes.yaml").write_text(yaml.safe_dump(study))
    params = copy.root / "params.yaml"
    params.write_text(params.read_text() + "# edited\n")
    return copy


def start_and_wait_for_training(checkout: Checkout) -> subprocess.Popen[str]:
    """Start the study and return once its first run trains and has a checkpoint."""
    log = checkout.root / ".ckpt/studies/current.log"
    log.unlink(missing_ok=True)
    process = checkout.start(*COMMAND, ATLAS_CHECKPOINT_SECONDS="0")
    deadline = time.monotonic() + 600
    while not (
        log.is_file()
        and "stages.train\n" in log.read_text()
        and list((checkout.root / ".ckpt/train").glob("*/step-*"))
    ):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return process


def processes(checkout: Checkout) -> list[list[str]]:
    """List the commands that run in the project or in DVC's copies of it."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd().startswith(str(checkout.root)) and process.pid != psutil.Process().pid:
                found.append(process.cmdline())
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def user_state(checkout: Checkout) -> list[str]:
    """Return everything of the user that a study may not change."""
    return [
        checkout.git("symbolic-ref", "HEAD"),
        checkout.git("rev-parse", "HEAD"),
        checkout.git("status", "--short"),
        checkout.git("stash", "list"),
        (checkout.root / "params.yaml").read_text(),
        checkout.dvc("queue", "status"),
    ]


def copies(checkout: Checkout) -> list[str]:
    """List the copies of the project that DVC has not removed."""
    return [path.name for path in (checkout.root / ".dvc/tmp/exps/standalone").glob("tmp*")]


def test_a_study_is_interrupted_resumed_and_written(checkout):
    before = user_state(checkout)
    assert "theirs" in before[-1]
    process = start_and_wait_for_training(checkout)
    assert "a study is running in this folder" in checkout.run(*COMMAND, check=False)
    process.send_signal(signal.SIGINT)
    printed = process.communicate(timeout=60)[0]
    assert process.returncode == 130, printed
    assert "stopped: 0 of 2 runs are done" in printed
    assert processes(checkout) == []
    assert copies(checkout) == []
    assert list((checkout.root / ".ckpt/train").glob("*/step-*"))
    assert user_state(checkout) == before

    printed = checkout.run(*COMMAND, check=False)
    assert "sizes: 2 runs, 0 done" in printed
    assert "[1/2] sizes_fits_s1_" in printed
    assert "[2/2] sizes_too-large_s1_" in printed
    assert "failed: tokenizer.vocab_size is 30000" in printed
    assert "error: 1 of 2 runs failed: sizes_too-large_s1_" in printed
    (log,) = (checkout.root / ".ckpt/studies").glob("sizes_fits_*.log")
    assert "continuing from step" in log.read_text()
    page = (checkout.root / "docs/studies/sizes.md").read_text()
    assert "| fits | 400 | " in page
    assert "| too large | 30000 |  |  | 0 of 1, 1 failed: tokenizer.vocab_size is 30000" in page
    assert (checkout.root / "docs/studies/sizes.svg").read_text().startswith("<?xml")
    assert "sizes_fits_s1_" in checkout.dvc("exp", "show", "--csv")
    after = user_state(checkout)
    assert after[:2] + after[3:] == before[:2] + before[3:]

    (checkout.root / "docs/studies/sizes.md").unlink()
    assert "wrote docs/studies/sizes.md" in checkout.run(*COMMAND, "--table")
    assert (checkout.root / "docs/studies/sizes.md").read_text() == page


def test_a_killed_study_leaves_nothing_running_and_resumes_even_after_a_commit(checkout):
    before = user_state(checkout)
    process = start_and_wait_for_training(checkout)
    process.kill()
    process.communicate(timeout=60)
    deadline = time.monotonic() + 60
    while left := processes(checkout):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
    assert copies(checkout) == []
    assert user_state(checkout) == before

    process = start_and_wait_for_training(checkout)
    process.terminate()
    assert "stopped: 0 of 2 runs are done" in process.communicate(timeout=60)[0]
    assert processes(checkout) == []
    assert user_state(checkout) == before

    assert "[1/2] sizes_fits" in checkout.run(*COMMAND, check=False)
    checkout.git("add", "-A")
    checkout.git("commit", "-qm", "Add what the study found")
    printed = checkout.run(*COMMAND, check=False)  # retries the failed run only
    assert "sizes: 2 runs, 1 done" in printed
    assert "sizes_fits" not in printed
    assert checkout.git("status", "--short") == ""
    assert "1 of 2" in checkout.run("atlas", "study")
