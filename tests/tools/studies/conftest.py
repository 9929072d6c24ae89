"""A project with everything that decides the results of a study."""

import shutil
import subprocess

import pytest

from tests.code_walk import ROOT


@pytest.fixture
def project(tmp_path):
    """A git repository with params, code and presets, without data."""
    for name in ("presets", "src", "stages"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("params.yaml", "dvc.yaml", ".gitignore"):
        shutil.copy(ROOT / name, tmp_path / name)
    for name in ("data/own", "models/own"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / ".gitkeep").touch()
    (tmp_path / "studies").mkdir()
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for command in ("init -q", "add -A", "commit -qm project"):
        subprocess.run([*git, *command.split()], cwd=tmp_path, check=True)
    return tmp_path
