"""The first minutes: what make says and does before anything is installed.

A stub takes the place of pip, so that nothing is downloaded.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.code_walk import ROOT

PIP = 'import sys\nopen("pip.log", "a").write(" ".join(sys.argv[1:]) + "\\n")\n'
PYTHON = f"""#!/bin/sh
# A Python whose environments have a stub of pip.
[ "$1 $2" = "-m venv" ] || exec {sys.executable} "$@"
shift 2
{sys.executable} -m venv --without-pip "$@" || exit
for folder do :; done
cp "$(dirname "$0")/pip.py" "$folder"/lib/python*/site-packages/
"""


class Project:
    """A folder with a Makefile, in a repository of its own."""

    def __init__(self, root: Path, tools: Path) -> None:
        self.root, self.tools = root, tools

    def make(self, *arguments: str, **environment: str) -> tuple[int, list[str]]:
        """Run make; return its exit code and its lines on stderr, without make's own."""
        done = subprocess.run(
            ["make", f"PYTHON={self.tools / 'python'}", *arguments],
            cwd=self.root,
            env=os.environ | {"GIT_CEILING_DIRECTORIES": str(self.root.parent)} | environment,
            capture_output=True,
            text=True,
        )
        return done.returncode, [
            line for line in done.stderr.splitlines() if not line.startswith("make")
        ]

    def installs(self) -> int:
        """Count the calls of pip."""
        log = self.root / "pip.log"
        return len(log.read_text().splitlines()) if log.exists() else 0

    def activated(self) -> str:
        """The folder that the environment's activate script names."""
        command = '. .venv/bin/activate && printf %s "$VIRTUAL_ENV"'
        return subprocess.check_output(["sh", "-c", command], cwd=self.root, text=True)


@pytest.fixture
def project(tmp_path):
    tools, root = tmp_path / "tools", tmp_path / "my projekt ö"
    tools.mkdir()
    root.mkdir()
    (tools / "python").write_text(PYTHON)
    (tools / "python").chmod(0o755)
    (tools / "pip.py").write_text(PIP)
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, root)
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    return Project(root, tools)


def test_without_a_repository_nothing_is_installed(project):
    shutil.rmtree(project.root / ".git")
    code, (line,) = project.make()
    assert code
    assert line.startswith("error: DVC needs a git repository, and this folder is in none; run: ")
    assert not (project.root / ".venv").exists()
    for command in line.partition("run: ")[2].split(" && "):
        author = "git -c user.name=A -c user.email=a@example.com"
        command = command.replace("git", author, 1)
        subprocess.run(command, shell=True, cwd=project.root, check=True, capture_output=True)
    assert project.make("install")[0] == 0


def test_a_folder_of_a_larger_repository_will_do(project):
    (project.root / "inner").mkdir()
    for name in ("Makefile", "pyproject.toml"):
        shutil.move(project.root / name, project.root / "inner")
    project.root /= "inner"
    assert project.make("install", GIT_CEILING_DIRECTORIES="")[0] == 0


DUBIOUS = """cat >&2 <<'END'
fatal: detected dubious ownership in repository at '/x y'
To add an exception for this directory, call:

	git config --global --add safe.directory '/x y'
END
exit 128"""


@pytest.mark.parametrize(
    ("git", "message"),
    [
        ("exit 127", "error: DVC needs git: "),
        (
            DUBIOUS,
            "error: another user owns this repository; if you trust it, run: "
            "git config --global --add safe.directory '/x y'",
        ),
    ],
)
def test_a_git_that_refuses_is_explained_in_one_line(project, git, message):
    (project.tools / "git").write_text(f"#!/bin/sh\n{git}\n")
    (project.tools / "git").chmod(0o755)
    path = f"{project.tools}{os.pathsep}{os.environ['PATH']}"
    code, (line,) = project.make("install", PATH=path)
    assert code
    assert line.startswith(message)


@pytest.mark.parametrize(
    ("python", "message"),
    [
        ("exit 1", "is missing or older than 3.11; choose another one: make PYTHON=python3.12"),
        ("echo shim: not found >&2; exit 127", "is missing or older than 3.11"),
        ('case "$2" in *ensurepip*) echo Traceback >&2; exit 1;; esac', "sudo apt install python3"),
    ],
)
def test_a_python_that_will_not_do_is_named_in_one_line(project, python, message):
    (project.tools / "python").write_text(f"#!/bin/sh\n{python}\n")
    code, (line,) = project.make("install")
    assert code
    assert line.startswith(f"error: {project.tools}/python ")
    assert message in line
    assert not (project.root / ".venv").exists()


def move(project):
    project.root = project.root.rename(project.root.parent / "moved")


def copy(project):
    project.root = Path(shutil.copytree(project.root, project.root.parent / "copy", symlinks=True))


def lose_python(project):
    for name in (project.root / ".venv/bin").glob("python*"):
        name.unlink()
        name.symlink_to("/nowhere/python3")


def upgrade_python(project):
    library = next((project.root / ".venv/lib").glob("python*"))
    library.rename(library.with_name("python3.2"))


def interrupt_venv(project):
    (project.root / ".venv/bin/activate").unlink()
    (project.root / ".venv/python").unlink()


@pytest.mark.parametrize("damage", [move, copy, lose_python, upgrade_python, interrupt_venv])
def test_an_environment_that_cannot_work_is_built_anew(project, damage):
    assert project.make("install")[0] == 0
    damage(project)
    before = project.installs()
    code, lines = project.make("install")
    assert code == 0
    assert lines[0].startswith("note: .venv was made in another folder, is incomplete or has lost")
    assert project.activated() == str(project.root / ".venv")
    assert project.installs() == before + 1
    assert project.make("install") == (0, [])  # and stays
    assert project.installs() == before + 1


def test_an_interrupted_install_goes_on(project):
    pip = project.tools / "pip.py"
    pip.write_text(PIP + "sys.exit(1)")
    assert project.make("install")[0]
    site = next((project.root / ".venv/lib").glob("python*/site-packages"))
    (site / "pip.py").write_text(PIP)
    code, lines = project.make("install")
    assert code == 0
    assert "note:" not in "".join(lines)
    assert project.installs() == 2


def test_pip_shows_its_progress_and_make_names_size_and_time(project):
    _, lines = project.make("install")
    assert any("GB" in line and "minutes" in line for line in lines)
    assert "quiet" not in (project.root / "pip.log").read_text()
