"""The inputs that decide the results of a run: params, code and data.

Equal inputs give equal bytes, whichever commit they come from. The name of an experiment ends
with a hash of its inputs, so the name tells whether a study still needs to run it.
"""

import hashlib
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import yaml
from dvc.api import DVCFileSystem

from atlas.errors import AtlasError, one_line
from atlas.params.schema import Params, leaves
from atlas.pipeline.files import files_below, sha256

DIGITS = 8
HOW_TO_RESTORE = "`git checkout` restores it"


class Snapshot:
    """The inputs in the working tree at one moment, and the metrics files of dvc.yaml."""

    def __init__(self, root: Path) -> None:
        pipeline = read_mapping(root, "dvc.yaml", HOW_TO_RESTORE)
        self.params = read_mapping(root, "params.yaml", HOW_TO_RESTORE)  # not validated
        stages = pipeline["stages"].values()
        outs = {
            out
            for stage in stages
            for kind in ("outs", "metrics", "plots")
            for out in _paths(stage.get(kind, []))
        }
        tables = (*stages, pipeline)
        self.metrics = {path for table in tables for path in _paths(table.get("metrics", []))}
        self._root = root
        self._commands = {name: stage["cmd"] for name, stage in pipeline["stages"].items()}
        self._deps = sorted(
            dep
            for dep in {dep for stage in stages for dep in stage["deps"]}
            if not any(dep == out or dep.startswith(f"{out}/") for out in outs)
        )
        self._tracked = _git_files(root)
        self._untracked = _git_files(root, "--others", "--exclude-standard")
        self._hashes: dict[tuple[str, bool], dict[str, str]] = {}

    def fingerprint(self, params: Params) -> str:
        """Hash the inputs of a run with these params."""
        inputs = [params.model_dump(), self._commands, self._files(params)]
        return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:DIGITS]

    def matches(self, experiment: str, params: Params) -> bool:
        """Check that an experiment ran with these params and with the files of this snapshot."""
        copy = DVCFileSystem(str(self._root), rev=experiment)
        values = yaml.safe_load(copy.read_text("params.yaml"))
        if Params.from_mapping(values, f"params.yaml of {experiment}") != params:
            return False
        return all(
            copy.isfile(path) and hashlib.sha256(copy.read_bytes(path)).hexdigest() == digest
            for path, digest in self._files(params).items()
            if not Path(path).is_absolute()
        )

    def _files(self, params: Params) -> dict[str, str]:
        """Map each file that the stages read to its hash."""
        values = dict(leaves(params.model_dump()))
        files: dict[str, str] = {}
        for dep in self._deps:
            path = re.sub(r"\$\{([\w.]+)\}", lambda key: str(values[key[1]]), dep)
            is_own_text = params.corpus.name == "files" and path == params.corpus.files.path
            key = (path, is_own_text)
            if key not in self._hashes:
                names = self._names(path, is_own_text)
                self._hashes[key] = {name: sha256(self._root / name) for name in names}
            files |= self._hashes[key]
        return files

    def _names(self, path: str, is_own_text: bool) -> list[str]:
        """List the files of a dependency; DVC's copy of the project must have them.

        It may lack those that git ignores, except in the user's own text.
        """
        found = [file for file in files_below(self._root / path) if file.is_file()]
        if Path(path).is_absolute():
            return [str(file) for file in found]
        names = {file.relative_to(self._root).as_posix() for file in found}
        known = names & self._tracked
        unknown = names - known if is_own_text else names & self._untracked
        if unknown or not known:
            file = path if is_own_text else min(unknown, default=path)
            raise AtlasError(
                f"{file}: git does not track all of it, but experiments need that: "
                f"`git add -f {file}`, or use an absolute path"
            )
        return sorted(known)


def read_mapping(root: Path, file: str, hint: str) -> dict[str, Any]:
    """Read a YAML file of keys and values; ``hint`` tells the user what to do if it has none."""
    try:
        values = yaml.safe_load((root / file).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise AtlasError(f"{file}: not readable as YAML: {one_line(error)}") from None
    if not isinstance(values, dict):
        raise AtlasError(f"{file}: it has no keys; {hint}")
    return values


def _paths(entries: list[Any]) -> list[str]:
    """Return the paths in a list of dvc.yaml, whose entries may carry settings."""
    return [next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries]


def _git_files(root: Path, *options: str) -> set[str]:
    """List files of the git repository, relative to the root."""
    command = ["git", "ls-files", "-z", *options]
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True)
    if listed.returncode:
        raise AtlasError(f"{root}: not a git repository, which DVC experiments need: `git init`")
    return set(listed.stdout.split("\0"))
