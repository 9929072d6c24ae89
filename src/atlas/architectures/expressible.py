"""What a runtime can express: values of model options, those not named being free."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

Options = Mapping[str, Any]
Allowed = Mapping[str, tuple[Any, ...]]

# What holds for each row unless it says otherwise.
COMMON: Allowed = {
    "kind": ("decoder",),
    "norm_place": ("pre",),
    "qk_norm": ("none",),
    "window": (0,),  # no runtime has a model that looks back so far in every block
}


@dataclass(frozen=True)
class Expressible:
    """A kind of model that a runtime has.

    Attributes:
        name: that the runtime calls it by.
        allows: values of each model option that it can express, the usual one first; options not
            named are free. Together with ``COMMON``.
    """

    name: str
    allows: Allowed

    @property
    def allowed(self) -> Allowed:
        """With what holds for each."""
        return {**COMMON, **self.allows}

    @property
    def rotates(self) -> bool:
        """Whether it has RoPE, be it turned down to nothing."""
        return "rope" in self.allowed["positions"]

    def misfits(self, options: Options) -> dict[str, Any]:
        """The options that would have to change, with the value that each needs."""
        return {
            key: values[0] for key, values in self.allowed.items() if options[key] not in values
        }


Row = TypeVar("Row", bound=Expressible)


def fitting(rows: Sequence[Row], options: Options) -> Row | None:
    """The first row that can express these model options, None where there is none."""
    return next((row for row in rows if not row.misfits(options)), None)


def nearest_change(rows: Sequence[Expressible], options: Options) -> str:
    """The fewest changes after which a row can, as ``model.norm=layernorm ...``."""
    misfits = min((row.misfits(options) for row in rows), key=len)
    return " ".join(f"model.{key}={str(value).lower()}" for key, value in misfits.items())


def combination(options: Options) -> str:
    """The options on which it depends, as ``learned + rmsnorm + swiglu``, unusual ones named."""
    if options["kind"] != "decoder":
        return f"model.kind={options['kind']}"
    parts = [str(options[key]) for key in ("positions", "norm", "feed_forward")]
    parts += [f"{key}={options[key]}" for key, usual in COMMON.items() if options[key] not in usual]
    parts += [key for key in ("bias", "tied_head") if options[key]]
    return " + ".join(parts)
