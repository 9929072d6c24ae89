"""What decides the results of a run: its params, and the code and data that stages read.

Results of equal params, code and data are equal bytes, whichever commit they belong to. The
name of an experiment ends with a hash of the three, so that a name tells whether a run is what
its study wants now.
"""

import hashlib
import json
import re
import subprocess
from pathlib import Path
from typing import Any

from atlas.errors import AtlasError
from atlas.params.schema import Params, leaves
from atlas.pipeline.files import files_below, sha256
from atlas.tools.studies.plan import read_mapping

DIGITS = 8
BROUGHT_BACK = "`git checkout` brings it back"


class Snapshot:
    """A project as it is now.

    Attributes:
        params: what params.yaml holds, not validated.
        metrics: the files of metrics that dvc.yaml names.
    """

    def __init__(self, root: Path) -> None:
        pipeline = read_mapping(root, "dvc.yaml", BROUGHT_BACK)
        self.params = read_mapping(root, "params.yaml", BROUGHT_BACK)
        stages = pipeline["stages"]
        outs = {
            out
            for stage in stages.values()
            for kind in ("outs", "metrics", "plots")
            for out in _paths(stage.get(kind, []))
        }
        self._root = root
        self._commands = {name: stage["cmd"] for name, stage in stages.items()}
        self._deps = sorted(
            dep
            for dep in {dep for stage in stages.values() for dep in stage["deps"]}
            if not any(dep == out or dep.startswith(f"{out}/") for out in outs)
        )
        each = [stage.get("metrics", []) for stage in stages.values()]
        self.metrics = {path for metrics in each for path in _paths(metrics)}
        self.metrics |= set(_paths(pipeline.get("metrics", [])))
        self._tracked = _tracked(root)
        self._hashes: dict[tuple[str, bool], dict[str, str]] = {}

    def fingerprint(self, params: Params) -> str:
        """The hash of what decides the results of a run with these params.

        Raises:
            AtlasError: a file that the run reads would be missing in DVC's copy of the project.
        """
        values = dict(leaves(params.model_dump()))
        files: dict[str, str] = {}
        for dep in self._deps:
            path = re.sub(r"\$\{([\w.]+)\}", lambda key: str(values[key[1]]), dep)
            is_own_text = params.corpus.name == "files" and path == params.corpus.files.path
            files |= self._files(path, is_own_text)
        inputs = {"params": values, "commands": self._commands, "files": files}
        return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:DIGITS]

    def _files(self, path: str, must_be_all: bool) -> dict[str, str]:
        """The files of a dependency with their hashes, as far as a copy of the project has them."""
        key = (path, must_be_all)
        if key not in self._hashes:
            self._hashes[key] = {
                name: sha256(self._root / name) for name in self._names(path, must_be_all)
            }
        return self._hashes[key]

    def _names(self, path: str, must_be_all: bool) -> list[str]:
        found = [file for file in files_below(self._root / path) if file.is_file()]
        if Path(path).is_absolute():
            return [str(file) for file in found]
        names = [file.relative_to(self._root).as_posix() for file in found]
        known = [name for name in names if name in self._tracked]
        if not known or (must_be_all and len(known) < len(names)):
            raise AtlasError(
                f"{path}: git does not know {'all of ' if known else ''}it, and experiments run in "
                f"copies of what git knows: `git add {path}`, or give an absolute path"
            )
        return known


def _paths(entries: list[Any]) -> list[str]:
    """The paths of a list of dvc.yaml, with or without settings."""
    return [next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries]


def _tracked(root: Path) -> set[str]:
    """The files that git knows, as paths from the root.

    Raises:
        AtlasError: this is no git repository.
    """
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True)
    if listed.returncode:
        raise AtlasError(f"{root}: no git repository, which DVC's experiments want: `git init`")
    return set(listed.stdout.split("\0"))
