"""What git and DVC know of a run: its commit, its params, and what it was before.

The last commit is read through git alone, as metrics and params are all kept there: what
``dvc metrics diff`` and ``dvc params diff`` say, in a hundredth of the time.
"""

import contextlib
import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from atlas.params.schema import leaves
from atlas.tools.report.reading import readable

Metrics = Mapping[str, Mapping[str, Any]]
Params = Mapping[str, Any]
QUICK = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
SECONDS = 20.0  # for git, which takes milliseconds


@dataclass(frozen=True)
class Commit:
    """The last commit, and what it holds of a run.

    Attributes:
        sha: its hash.
        subject: its first line.
        day: of the commit, as 2026-01-31.
        params: its params.yaml, by dotted key.
        metrics: values of its files of metrics, by their place.
    """

    sha: str
    subject: str
    day: str
    params: Params
    metrics: Metrics


@dataclass(frozen=True)
class History:
    """Where a run comes from.

    Attributes:
        commit: the last one; None without git or without any.
        edited: files of the project that are not as they were committed.
        params: params.yaml as it is, by dotted key.
        ran: the params that the results were made with, as dvc.lock has them.
    """

    commit: Commit | None
    edited: tuple[str, ...] = ()
    params: Params = field(default_factory=dict)
    ran: Params = field(default_factory=dict)

    @property
    def changed_params(self) -> list[tuple[str, Any, Any]]:
        """Each param of the run that the last commit has otherwise: its key, before, now."""
        return _differences(self.commit.params, self.ran or self.params) if self.commit else []

    @property
    def stale_params(self) -> list[tuple[str, Any, Any]]:
        """Each param that was edited since the run: its key, in the run, now."""
        return _differences(self.ran, self.params)


def read_history(root: Path, metrics: Path) -> History:
    """Asks git and dvc.lock; what is missing or broken there is left out.

    Args:
        root: of the project.
        metrics: its folder of metrics.
    """
    lock = _mapping(_read(root / "dvc.lock"))
    stages = lock.get("stages")
    of_stages = stages.values() if isinstance(stages, dict) else ()
    ran: dict[str, Any] = {}
    for stage in of_stages:
        by_file = stage.get("params") if isinstance(stage, dict) else None
        values = by_file.get("params.yaml") if isinstance(by_file, dict) else None
        ran |= dict(leaves(values)) if isinstance(values, dict) else {}
    place = metrics.relative_to(root).as_posix()
    return History(
        commit=_last_commit(root, place),
        edited=_edited(root, place),
        params=dict(leaves(_mapping(_read(root / "params.yaml")))),
        ran=ran,
    )


def _differences(before: Params, now: Params) -> list[tuple[str, Any, Any]]:
    keys = [key for key in now if key in before]
    return [(key, before[key], now[key]) for key in keys if _value(before[key]) != _value(now[key])]


def _value(value: Any) -> Any:
    """A value to compare: YAML 1.1 reads 3e-4 as text."""
    with contextlib.suppress(ValueError):
        return float(value) if isinstance(value, str) else value
    return value


def _last_commit(root: Path, place: str) -> Commit | None:
    told = _git(root, "log", "-1", "--format=%H%x00%cs%x00%s")
    if told is None or told.count("\0") != 2:
        return None
    sha, day, subject = told.strip().split("\0")
    listed = _git(root, "ls-tree", "-r", "-z", "--name-only", "HEAD", f"{place}/") or ""
    files = [name for name in listed.split("\0") if name.endswith(".json")]
    return Commit(
        sha=sha,
        subject=readable(subject),
        day=day,
        params=dict(leaves(_mapping(_git(root, "show", "HEAD:./params.yaml")))),
        metrics={
            name.removeprefix(f"{place}/").removesuffix(".json"): _object(
                _git(root, "show", f"HEAD:./{name}")
            )
            for name in files
        },
    )


def _edited(root: Path, metrics: str) -> tuple[str, ...]:
    """What is not as it was committed; results are left out, as a run changes them."""
    listed = _git(root, "diff", "--relative", "--name-only", "-z", "HEAD", "--", ".") or ""
    results = (f"{metrics}/", "dvc.lock")
    names = [name for name in listed.split("\0") if name and not name.startswith(results)]
    return tuple(map(readable, names))


def _git(root: Path, *arguments: str) -> str | None:
    """What git prints; None if it refuses or is not there."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=root, capture_output=True, timeout=SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", errors="replace")


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def _mapping(text: str | None) -> dict[str, Any]:
    try:
        found = yaml.load(text or "", Loader=QUICK)  # noqa: S506 - a safe one
    except yaml.YAMLError:
        return {}
    return found if isinstance(found, dict) else {}


def _object(text: str | None) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
