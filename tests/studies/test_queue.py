"""What is asked of DVC, in a project of one small stage."""

import shutil
import subprocess
import sys

import pytest
from dvc.repo import Repo

from atlas.studies.queue import Queue

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
    dvc = [sys.executable, "-m", "dvc"]
    for command in (["git", "init", "-q"], [*dvc, "init", "-q"], [*dvc, "repro", "-q"]):
        subprocess.run(command, cwd=tmp_path, check=True)
    return tmp_path


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
