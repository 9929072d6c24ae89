"""A project whose studies can be planned."""

import shutil
import subprocess

import pytest

from tests.code_walk import ROOT


@pytest.fixture
def project(tmp_path):
    """What decides results, in a git repository."""
    for name in ("presets", "src", "stages"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("params.yaml", "dvc.yaml", ".gitignore"):
        shutil.copy(ROOT / name, tmp_path / name)
    for name in ("data/own", "models/own"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / ".gitkeep").touch()
    (tmp_path / "studies").mkdir()
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run(["git", "add", "-A"], cwd=tmp_path, check=True)
    return tmp_path
