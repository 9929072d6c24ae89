"""Presets: small overlays on params.yaml, one file each in presets/.

A preset is not a second source of values: it is passed to DVC as ``-S`` flags, or written into
params.yaml, which then shows every value in effect.
"""

import functools
import io
import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.representer import RoundTripRepresenter as Representer

from atlas.errors import AtlasError, did_you_mean, one_line
from atlas.params.overrides import leaves, override
from atlas.params.schema import Params

FOLDER = "presets"
Values = dict[str, Any]


def available(root: Path) -> list[str]:
    """List the names of the presets of a project."""
    return sorted(path.stem for path in (root / FOLDER).glob("*.yaml"))


def overlay(root: Path, names: Sequence[str]) -> Values:
    """Collect the values of presets by dotted key and validate them; later presets win."""
    with_presets(root, names)
    return collect(root, names)


def with_presets(root: Path, names: Sequence[str]) -> Params:
    """Return the params of a project with presets applied."""
    tree, values = _load(root / "params.yaml"), collect(root, names)
    set_values(tree, values, "presets")
    return Params.from_mapping(tree, f"params.yaml{' with these presets' if values else ''}")


def collect(root: Path, names: Sequence[str]) -> Values:
    """Collect the values of presets by dotted key without validating them; later presets win."""
    values: Values = {}
    for name in names:
        path = root / FOLDER / f"{name}.yaml"
        if not path.is_file():
            known = available(root)
            hint = did_you_mean(name, known)
            raise AtlasError(f"preset {name}: no such preset{hint} (available: {', '.join(known)})")
        values |= dict(leaves(_load(path)))
    return values


def as_flags(values: Values) -> str:
    """Format values as ``-S key=value`` flags for ``dvc exp run``, on one line."""
    flags = []
    for key, value in values.items():
        text = override(value)
        if any(character.isspace() for character in text):
            raise AtlasError(
                f"presets: {key}={text} contains whitespace, which `$(atlas preset ...)` cannot "
                "pass on; use `atlas preset NAME --apply`"
            )
        flags.append(f"-S {key}={text}")
    return " ".join(flags)


def apply(root: Path, values: Values) -> tuple[str, list[str]]:
    """Return params.yaml with new values, and changes such as ``train.lr: 0.004 -> 0.0003``."""
    tree = _load(root / "params.yaml")
    changes = set_values(tree, values, "presets")
    text = io.StringIO()
    _yaml().dump(tree, text)
    return text.getvalue(), changes


def set_values(tree: Values, values: Values, source: str) -> list[str]:
    """Set values by dotted key in the tree of params.yaml, and return a line per change."""
    current = dict(leaves(tree))
    changes = []
    for dotted, value in values.items():
        if dotted not in current:
            hint = did_you_mean(dotted, current)
            raise AtlasError(f"{source}: {dotted} is not a key of params.yaml{hint}")
        if current[dotted] != value:
            changes.append(f"{dotted}: {override(current[dotted])} -> {override(value)}")
            *sections, key = dotted.split(".")
            functools.reduce(operator.getitem, sections, tree)[key] = value
    return changes


def _load(path: Path) -> Any:
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
