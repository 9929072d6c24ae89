"""The origin of a run, from git and dvc.lock: its commit, its params, and earlier results.

Metrics and params are files in git, so reading them with git gives what `dvc params diff` and
`dvc metrics diff` give, in a hundredth of the time.
"""

import contextlib
import functools
import json
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from atlas.params.schema import leaves
from atlas.tools.report.results import readable

Params = Mapping[str, Any]  # by dotted key
Changes = list[tuple[str, Any, Any]]  # key, value before, value now
GIT_TIMEOUT = 20.0  # seconds; git takes milliseconds
LOAD_YAML = functools.partial(yaml.load, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


@dataclass(frozen=True)
class Commit:
    """The last commit; its metrics are by file, such as ``train`` or ``timing/train``."""

    sha: str
    day: str  # 2026-01-31
    subject: str
    params: Params
    metrics: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class History:
    """The origin of a run."""

    commit: Commit | None  # the last one; None without git or before the first
    edited: tuple[str, ...]  # files that differ from the commit, results excluded
    params: Params  # of the results, from dvc.lock, or else from params.yaml
    changed_params: Changes  # params of the run that differ from the last commit
    stale_params: Changes  # params edited since the run


def read_history(root: Path, metrics: Path) -> History:
    """Read the history of a project from git and dvc.lock; skip missing or damaged parts."""
    run_params: dict[str, Any] = {}
    for stage in _mapping(_load_file(root / "dvc.lock").get("stages")).values():
        params = _mapping(_mapping(stage).get("params"))
        run_params |= dict(leaves(_mapping(params.get("params.yaml"))))
    current = dict(leaves(_load_file(root / "params.yaml")))
    results = metrics.relative_to(root).as_posix()
    edited = _git(root, "diff", "--relative", "--name-only", "-z", "HEAD", "--", ".").split("\0")
    produced = (f"{results}/", "dvc.lock")
    commit = _last_commit(root, results)
    return History(
        commit=commit,
        edited=tuple(readable(name) for name in edited if name and not name.startswith(produced)),
        params=run_params or current,
        changed_params=_changes(commit.params, run_params or current) if commit else [],
        stale_params=_changes(run_params, current),
    )


def _last_commit(root: Path, results: str) -> Commit | None:
    log = _git(root, "log", "-1", "--format=%H%x00%cs%x00%s").strip().split("\0")
    if len(log) != 3:
        return None
    listed = _git(root, "ls-tree", "-r", "-z", "--name-only", "HEAD", f"{results}/").split("\0")
    metrics = {
        name.removeprefix(f"{results}/").removesuffix(".json"): _load(
            _git(root, "show", f"HEAD:./{name}"), json.loads
        )
        for name in listed
        if name.endswith(".json")
    }
    sha, day, subject = map(readable, log)
    params = dict(leaves(_load(_git(root, "show", "HEAD:./params.yaml"))))
    return Commit(sha, day, subject, params, metrics)


def _changes(before: Params, now: Params) -> Changes:
    """The params in both that differ."""

    def comparable(value: Any) -> Any:
        with contextlib.suppress(ValueError):  # YAML 1.1 reads 3e-4 as text
            return float(value) if isinstance(value, str) else value
        return value

    shared = [(key, before[key], value) for key, value in now.items() if key in before]
    return [each for each in shared if comparable(each[1]) != comparable(each[2])]


def _git(root: Path, *arguments: str) -> str:
    """The output of a git command; "" if it fails or git is not installed."""
    command = ["git", *arguments]
    try:
        done = subprocess.run(
            command, cwd=root, capture_output=True, check=True, timeout=GIT_TIMEOUT
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode("utf-8", errors="replace")


def _load_file(path: Path) -> dict[str, Any]:
    return _load(path.read_text(encoding="utf-8", errors="replace")) if path.is_file() else {}


def _load(text: str, load: Callable[[str], Any] = LOAD_YAML) -> dict[str, Any]:
    """The mapping in a YAML or JSON text; empty if there is none or it is damaged."""
    try:
        return _mapping(load(text))
    except (ValueError, RecursionError, yaml.YAMLError):
        return {}


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
