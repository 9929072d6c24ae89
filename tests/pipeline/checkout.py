"""A small copy of this project as a git repository of its own, to run DVC in."""

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
    "presets",
    "studies",
    "params.yaml",
    "dvc.yaml",
    ".gitignore",
    ".dvcignore",
)


class Checkout:
    """A checkout: its folder, and the commands a person would type in it.

    Attributes:
        root: the folder.
        seconds: that a command may take.
    """

    seconds = 300

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def create(cls, root: Path) -> "Checkout":
        """Copies the code of this project, with params of a model of seconds."""
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
        apply(root, SMALL)
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
        """How commands are run: here, as in a shell with the environment active, output kept."""
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
        """Runs a command to its end; returns what it printed, errors as well."""
        done = subprocess.run(command, timeout=self.seconds, **self.options(environment))
        if check:
            assert done.returncode == 0, done.stdout
        else:
            assert done.returncode != 0, done.stdout
        return done.stdout

    def start(self, *command: str, pipesize: int = -1, **environment: str) -> subprocess.Popen[str]:
        """Starts a command in a process group of its own, as a shell does.

        With a ``pipesize`` it is held up when it has printed as many bytes that nobody read.
        """
        return subprocess.Popen(
            command, start_new_session=True, pipesize=pipesize, **self.options(environment)
        )

    def git(self, *arguments: str) -> str:
        return self.run("git", *arguments)

    def dvc(self, *arguments: str, check: bool = True, **environment: str) -> str:
        return self.run("dvc", *arguments, check=check, **environment)

    def set(self, **values: Any) -> None:
        """Changes params.yaml, as a hand would."""
        apply(self.root, values)

    def json(self, path: str) -> dict[str, Any]:
        values: dict[str, Any] = json.loads((self.root / path).read_text(encoding="utf-8"))
        return values

    def hashes(self) -> dict[str, Any]:
        """What dvc.lock says of every output."""
        lock = yaml.safe_load((self.root / "dvc.lock").read_text(encoding="utf-8"))
        return {
            out["path"]: out["md5"] for stage in lock["stages"].values() for out in stage["outs"]
        }

    def copy(self, root: Path) -> "Checkout":
        """A copy, cache included."""
        shutil.copytree(self.root, root, symlinks=True)
        return Checkout(root)


def stages_run(output: str) -> list[str]:
    """The stages that DVC says it ran, in order."""
    return [stage for stage in STAGES if f"Running stage '{stage}'" in output]
