"""A small copy of this project in its own git repository, to run DVC in."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from atlas.params.presets import apply
from tests.code_walk import ROOT
from tests.small import SMALL, write_jsonl

STAGES = ("fetch", "clean", "train_tokenizer", "tokenize", "train", "evaluate", "export")
NEEDED = (
    "src",
    "stages",
    "chat_templates",
    "presets",
    "studies",
    "params.yaml",
    "dvc.yaml",
    ".gitignore",
    ".dvcignore",
)


class Checkout:
    """A checkout and the commands a user would type in it.

    Attributes:
        seconds: time limit of a command.
    """

    seconds = 300

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def create(cls, root: Path) -> "Checkout":
        """Copy the code of this project, with params of a model that trains in seconds."""
        root.mkdir()
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        for name in NEEDED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, root / name, ignore=ignored)
            else:
                shutil.copy(ROOT / name, root / name)
        (root / ".dvc").mkdir()
        for name in ("config", ".gitignore"):
            shutil.copy(ROOT / ".dvc" / name, root / ".dvc" / name)
        shutil.copytree(ROOT / ".dvc/plots", root / ".dvc/plots")
        (root / "params.yaml").write_text(apply(root, SMALL), encoding="utf-8")
        write_jsonl(root / "data/own/made-up.jsonl")
        (root / "models/own").mkdir(parents=True)
        (root / "models/own/.gitkeep").touch()
        checkout = cls(root)
        checkout.git("init", "-q", "-b", "main")
        checkout.git("config", "user.name", "A Tester")
        checkout.git("config", "user.email", "tester@example.com")
        checkout.git("add", "-A")
        checkout.git("commit", "-qm", "A small project")
        return checkout

    def options(self, environment: dict[str, str]) -> dict[str, Any]:
        """Return the subprocess options of a shell in the checkout with the venv active."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        kept = {key: value for key, value in os.environ.items() if not key.startswith("ATLAS_")}
        return {
            "cwd": self.root,
            "env": kept | {"PATH": path, "OMP_NUM_THREADS": "1"} | environment,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.STDOUT,
            "text": True,
        }

    def run(self, *command: str, check: bool = True, **environment: str) -> str:
        """Run a command to its end; return its output, stderr included."""
        done = subprocess.run(command, timeout=self.seconds, **self.options(environment))
        if check:
            assert done.returncode == 0, done.stdout
        else:
            assert done.returncode != 0, done.stdout
        return done.stdout

    def start(self, *command: str, pipesize: int = -1, **environment: str) -> subprocess.Popen[str]:
        """Start a command in its own process group, as a shell does.

        With a ``pipesize``, it blocks once that many bytes of output are unread.
        """
        return subprocess.Popen(
            command, start_new_session=True, pipesize=pipesize, **self.options(environment)
        )

    def git(self, *arguments: str) -> str:
        return self.run("git", *arguments)

    def dvc(self, *arguments: str, check: bool = True, **environment: str) -> str:
        return self.run("dvc", *arguments, check=check, **environment)

    def set(self, **values: Any) -> None:
        """Edit params.yaml."""
        (self.root / "params.yaml").write_text(apply(self.root, values), encoding="utf-8")

    def json(self, path: str) -> dict[str, Any]:
        values: dict[str, Any] = json.loads((self.root / path).read_text(encoding="utf-8"))
        return values

    def hashes(self) -> dict[str, Any]:
        """Return the hash of every output in dvc.lock."""
        lock = yaml.safe_load((self.root / "dvc.lock").read_text(encoding="utf-8"))
        return {
            out["path"]: out["md5"] for stage in lock["stages"].values() for out in stage["outs"]
        }

    def copy(self, root: Path) -> "Checkout":
        """Copy the checkout, cache included."""
        shutil.copytree(self.root, root, symlinks=True)
        return Checkout(root)


def stages_run(output: str) -> list[str]:
    """Return the stages that DVC reports as run, in order."""
    return [stage for stage in STAGES if f"Running stage '{stage}'" in output]
