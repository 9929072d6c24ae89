"""What is asked of DVC, in a project of one small stage."""

import shutil
import subprocess
import sys

import pytest
from dvc.repo import Repo

from atlas.tools.studies.queue import Queue
from atlas.tools.studies.session import ahead
from atlas.tools.studies.study import Run
from tests.small import small_params

PIPELINE = """
stages:
  write:
    cmd: mkdir some && echo text > some/file
    outs:
      - some
"""


@pytest.fixture
def project(tmp_path):
    """A project whose stage has run."""
    (tmp_path / "dvc.yaml").write_text(PIPELINE)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    dvc(tmp_path, "init", "-q")
    dvc(tmp_path, "repro", "-q")
    return tmp_path


def dvc(project, *arguments):
    subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=project, check=True)


def folders(project):
    with Repo(str(project)) as repo:
        return Queue(repo).folders_not_cached()


def test_folders_that_dvc_does_not_have_are_named(project):
    assert folders(project) == []
    shutil.rmtree(project / "some")
    assert folders(project) == []
    shutil.rmtree(project / ".dvc/cache/files")
    assert folders(project) == ["some"]
    (project / "dvc.lock").unlink()
    assert folders(project) == []  # DVC knows of no run


def test_what_others_have_queued_is_named(project):
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run([*git, "add", "."], cwd=project, check=True)
    subprocess.run([*git, "commit", "-qm", "a project"], cwd=project, check=True)
    for name in ("mine", "older"):
        dvc(project, "exp", "run", "-q", "--queue", "--name", name)
    mine = Run("mine", 0, 1, small_params(), ())
    with Repo(str(project)) as repo:
        assert ahead(Queue(repo), [mine]) == ["older"]
        assert sorted(ahead(Queue(repo), [])) == ["mine", "older"]
