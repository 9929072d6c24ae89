"""Presets: small overlays on the committed params.yaml, one file each in presets/.

A base model has one, too: ``atlas import`` writes models/NAME/preset.yaml beside the weights.

A preset is not a second source of values: it is passed to DVC as ``-S`` flags, or written into
params.yaml, which then shows every value in effect. Presets start from the params.yaml of the last
commit, so that nothing of an earlier preset or experiment stays.
"""

import functools
import io
import operator
import re
import shlex
import subprocess
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.representer import RoundTripRepresenter as Representer

from atlas.errors import AtlasError, did_you_mean, one_line
from atlas.params.overrides import leaves, override
from atlas.params.schema import Params, load_params

FOLDER, PARAMS = "presets", "params.yaml"
MODELS, OF_MODEL, BASE = "models", "preset.yaml", "base"  # models/base/preset.yaml
Values = dict[str, Any]


@dataclass(frozen=True)
class Change:
    """A key of params.yaml that presets change."""

    key: str
    old: Any  # in params.yaml
    committed: Any  # in the params.yaml of the last commit
    new: Any

    @property
    def is_edited(self) -> bool:
        """True if the value was changed since the last commit, by hand or by an experiment."""
        return bool(self.old != self.committed)

    def __str__(self) -> str:
        edited = ""
        if self.is_edited:
            is_back = self.new == self.committed
            edited = " (as committed)" if is_back else f" (committed: {override(self.committed)})"
        return f"{PARAMS}: {self.key}: {override(self.old)} -> {override(self.new)}{edited}"


def available(root: Path) -> dict[str, Path]:
    """Return the files of a project's presets by name, first those of its imported models."""
    of_models = {
        path.parent.name: path for path in sorted((root / MODELS).glob(f"[!.]*/{OF_MODEL}"))
    }
    own = {path.stem: path for path in sorted((root / FOLDER).glob("*.yaml"))}
    return of_models | own


def described(root: Path) -> list[tuple[str, str]]:
    """List the presets of a project with the first sentence of the comment at their top."""
    found = []
    for name, path in available(root).items():
        lines = path.read_text(encoding="utf-8").splitlines()
        comment = [
            line.removeprefix("#") for line in takewhile(lambda line: line.startswith("#"), lines)
        ]
        sentences = re.split(r"(?<!\bal)\.(?: |$)", one_line(" ".join(comment)))
        found.append((name, sentences[0]))
    return found


def changes(root: Path, names: Sequence[str]) -> list[Change]:
    """List what presets change in params.yaml, validated; later presets win.

    Keys that no preset names get their committed values.
    """
    current = dict(leaves(_read(root / PARAMS)))
    committed = current | _committed(root, current)
    target = committed | collect(root, names)
    set_values(tree := _read(root / PARAMS), target, "presets")
    Params.from_mapping(tree, f"{PARAMS} with these presets", root)
    return [
        Change(key, value, committed[key], target[key])
        for key, value in current.items()
        if target[key] != value
    ]


def with_presets(root: Path, names: Sequence[str]) -> Params:
    """Return the params of a project, or those that presets make of them."""
    if not names:
        return load_params(root / PARAMS)
    values = {change.key: change.new for change in changes(root, names)}
    return Params.from_mapping(_yaml().load(apply(root, values)), root=root)


def collect(root: Path, names: Sequence[str]) -> Values:
    """Collect the values of presets by dotted key; later presets win."""
    known = available(root)
    values: Values = {}
    for name in names:
        if name == BASE and name not in known:
            raise AtlasError(
                f"preset {name}: no {MODELS}/{BASE} yet; `atlas import SOURCE` writes it from a "
                "Hugging Face folder, a GGUF file or the folder of an earlier run"
            )
        if name not in known:
            hint = did_you_mean(name, known)
            raise AtlasError(f"preset {name}: no such preset{hint} (available: {', '.join(known)})")
        values |= dict(leaves(_read(known[name])))
    return values


def as_flags(values: Values, *, quoted: bool = False) -> str:
    """Format values as ``-S key=value`` flags for ``dvc exp run``, on one line.

    Without ``quoted`` they are for ``$(...)``, which a shell splits at blanks.
    """
    flags = []
    for key, value in values.items():
        text = f"{key}={override(value)}"
        if quoted:
            text = shlex.quote(text)
        elif any(character.isspace() for character in text):
            raise AtlasError(
                f"presets: {text} has a blank, at which a shell splits `$(atlas preset ...)`: "
                'use eval "dvc exp run $(atlas preset --quoted ...)", or `atlas preset --apply ...`'
            )
        flags.append(f"-S {text}")
    return " ".join(flags)


def apply(root: Path, values: Values) -> str:
    """Return the text of params.yaml with new values by dotted key; comments stay."""
    tree = _read(root / PARAMS)
    set_values(tree, values, "presets")
    text = io.StringIO()
    _yaml().dump(tree, text)
    return text.getvalue()


def _committed(root: Path, keys: Collection[str]) -> Values:
    """Read the values that keys have in the last commit; none if nothing is committed."""
    command = ["git", "show", f"HEAD:./{PARAMS}"]
    try:
        text = subprocess.run(command, cwd=root, capture_output=True, check=True).stdout.decode()
        tree = _yaml().load(text)
    except (OSError, subprocess.CalledProcessError):
        return {}
    except (ValueError, YAMLError) as error:
        raise AtlasError(f"{PARAMS} of the last commit: not readable: {one_line(error)}") from None
    return {key: value for key, value in leaves(tree) if key in keys}


def set_values(tree: Values, values: Values, source: str) -> None:
    """Set values by dotted key in the tree of params.yaml."""
    current = dict(leaves(tree))
    for dotted, value in values.items():
        if dotted not in current:
            hint = did_you_mean(dotted, current)
            raise AtlasError(f"{source}: {dotted} is not a key of params.yaml{hint}")
        if current[dotted] != value:
            *sections, key = dotted.split(".")
            functools.reduce(operator.getitem, sections, tree)[key] = value


def _read(path: Path) -> Any:
    try:
        found = _yaml().load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, YAMLError) as error:
        raise AtlasError(f"{path}: not readable as YAML: {one_line(error)}") from None
    if not isinstance(found, dict):
        raise AtlasError(f"{path}: it contains no keys")
    return found


def _yaml() -> YAML:
    def represent_null(representer: Representer, _: None) -> ScalarNode:
        return representer.represent_scalar("tag:yaml.org,2002:null", "null")

    yaml = YAML()  # round-trip mode, which keeps comments
    yaml.representer.add_representer(type(None), represent_null)
    yaml.preserve_quotes = True
    yaml.width = 1000
    yaml.indent(mapping=2, sequence=4, offset=2)
    return yaml
