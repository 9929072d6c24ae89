"""A project with everything that decides the results of a study."""

import shutil
import subprocess

import pytest

from tests.code_walk import ROOT


@pytest.fixture(scope="session")
def unchanged_project(tmp_path_factory):
    """A git repository with params, code and presets, without data, which tests only read."""
    root = tmp_path_factory.mktemp("project")
    for name in ("chat_templates", "presets", "src", "stages"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("params.yaml", "dvc.yaml", ".gitignore"):
        shutil.copy(ROOT / name, root / name)
    for name in ("data/own", "models/own"):
        (root / name).mkdir(parents=True)
        (root / name / ".gitkeep").touch()
    (root / "studies").mkdir()
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for command in ("init -q", "add -A", "commit -qm project"):
        subprocess.run([*git, *command.split()], cwd=root, check=True)
    return root


@pytest.fixture
def project(unchanged_project, tmp_path):
    """A project of the test's own."""
    return shutil.copytree(unchanged_project, tmp_path, dirs_exist_ok=True)
