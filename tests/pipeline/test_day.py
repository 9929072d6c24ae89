"""A day with DVC: experiments, remotes, clones, worktrees, older commits. Nobody loses a model."""

import shutil
import time

import pytest

from tests.pipeline.checkout import Checkout, stages_run

pytestmark = pytest.mark.very_slow
CLEAN = "Data and pipelines are up to date.\n"


@pytest.fixture
def day(finished, tmp_path) -> Checkout:
    return finished.copy(tmp_path / "project")


def refuse(checkout: Checkout) -> None:
    """Run an experiment that is refused, and go back: nothing is lost and nothing reruns."""
    printed = checkout.dvc("exp", "run", "-S", "train.lr=-1", check=False)
    assert "must be greater than 0; the former outputs are back" in printed
    checkout.git("checkout", "HEAD", "params.yaml")
    assert checkout.git("status", "--short") == ""
    assert checkout.dvc("status") == CLEAN


def wait_for_queue(checkout: Checkout) -> None:
    deadline = time.monotonic() + 600
    while checkout.dvc("queue", "status").count("Success") < 2:
        assert "Failed" not in checkout.dvc("queue", "status")
        assert time.monotonic() < deadline
        time.sleep(1)


def test_experiments_queued_temporary_applied_and_branched(day):
    day.git("add", "--force", "data/own")  # the copies hold only files that git tracks
    day.git("commit", "-qm", "Keep the text in git")
    model = day.hashes()["models/model"]
    for name, seed in (("first", 2), ("second", 3)):
        day.dvc("exp", "run", "--queue", "--name", name, "-S", f"train.seed={seed}")
    day.dvc("queue", "start")
    wait_for_queue(day)
    day.dvc("exp", "run", "--temp", "--name", "third", "-S", "train.seed=4")
    printed = day.dvc("exp", "run", "--temp", "-S", "train.lr=-1", check=False)
    assert "train.lr is -1" in printed
    assert "the former outputs are back" not in printed  # the copy held none of the user's
    assert day.git("status", "--short") == ""
    assert day.hashes()["models/model"] == model
    assert day.dvc("status") == CLEAN
    for name in ("first", "third"):
        day.dvc("exp", "apply", name)
        assert day.hashes()["models/model"] != model
        assert day.dvc("status") == CLEAN
        day.git("reset", "-q", "--hard")
        day.dvc("checkout")
        assert day.dvc("status") == CLEAN
    day.dvc("exp", "branch", "second", "better")
    day.git("checkout", "-q", "better")
    day.dvc("checkout")
    assert stages_run(day.dvc("repro")) == []
    refuse(day)
    day.git("checkout", "-q", "main")
    day.dvc("checkout")
    assert day.hashes()["models/model"] == model


def test_a_second_clone_and_a_worktree_rerun_nothing(day, tmp_path):
    day.run("git", "init", "-q", "--bare", "-b", "main", str(tmp_path / "git"))
    day.git("remote", "add", "origin", str(tmp_path / "git"))
    day.dvc("remote", "add", "--default", "store", str(tmp_path / "store"))
    day.git("commit", "-qam", "Add a remote")
    day.git("push", "-q", "-u", "origin", "main")
    day.dvc("push")
    clone = Checkout(tmp_path / "clone")
    day.git("clone", "-q", str(tmp_path / "git"), str(clone.root))
    day.git("worktree", "add", "-q", str(tmp_path / "worktree"), "-b", "other")
    for other in (clone, Checkout(tmp_path / "worktree")):
        other.git("config", "user.name", "A Tester")
        other.git("config", "user.email", "tester@example.com")
        shutil.copytree(day.root / "data/own", other.root / "data/own", dirs_exist_ok=True)
        other.dvc("pull")
        assert stages_run(other.dvc("repro")) == []
        assert other.dvc("status") == CLEAN
        refuse(other)  # DVC has no run cache here: metrics come from git


def test_gc_freeze_and_older_commits(day):
    def go_to(commit: str) -> None:
        day.git("checkout", "-q", commit)
        day.dvc("checkout")
        assert day.dvc("status") == CLEAN

    day.set(**{"export.name": "other"})
    assert stages_run(day.dvc("repro")) == ["export"]
    day.git("commit", "-qam", "Another name")
    go_to("HEAD~1")
    assert (day.root / "models/export/atlas-f32.gguf").exists()
    refuse(day)
    go_to("main")
    assert (day.root / "models/export/other-f32.gguf").exists()
    day.dvc("gc", "--workspace", "--force")
    refuse(day)
    day.dvc("freeze", "train")
    assert "train" not in stages_run(day.dvc("exp", "run", "-S", "train.seed=5"))
    day.dvc("unfreeze", "train")
    day.git("checkout", "HEAD", "params.yaml", "dvc.yaml", "dvc.lock", "metrics")
    day.dvc("checkout")
    assert day.dvc("status") == CLEAN
