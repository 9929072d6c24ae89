"""The keys of a config from elsewhere: read, refused, or named when nobody reads them."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError

from atlas.errors import AtlasError
from atlas.params.schema import ModelParams

REQUIRED = object()  # the default of a key that must be there
# An unknown key with such a name may change the computation, so it is refused unless it is off.
COMPUTES = re.compile(
    r"scal|softcap|multiplier|expert|moe|sliding|window|clip|clamp|rope|rotary|bias|norm|parallel"
    r"|alibi|act|gate|layer|attention|attn|head|residual|sink|nope|mscale|pretraining_tp|embed"
    r"|quant|factor|conv|ssm|lora|swa|causal|sparse|mtp|nextn|dtype_override"
)
FACTOR = re.compile("scal|multiplier|factor|pretraining_tp")
OFF: tuple[Any, ...] = (None, False, 0, "", [], {})  # a value that switches a part off
UNIT = (1, 1.0)  # a factor that changes nothing


class ConfigKeys:
    """The keys of a config; remembers which ones were read."""

    def __init__(
        self,
        values: Mapping[str, Any],
        source: Path | str,
        prefix: str = "",
        defaults: Mapping[str, Any] | None = None,  # of keys that are missing, but not of null
    ) -> None:
        self._values, self.source, self._prefix = values, source, prefix
        self._defaults = defaults or {}
        self._read: set[str] = set()

    def get(self, key: str, default: Any = REQUIRED) -> Any:
        """The value of a key; null is the default."""
        self._read.add(key)
        value = self._values.get(key) if key in self._values else self._defaults.get(key)
        if value is None and default is REQUIRED:
            raise AtlasError(f"{self.source}: {self._prefix}{key} is missing")
        return default if value is None else value

    def number(self, key: str, default: Any = REQUIRED) -> int:
        """A whole number above 0."""
        value = self.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            self.refuse(key, "it must be a whole number above 0")
        return value

    def real(self, key: str, default: Any = REQUIRED) -> float:
        """A number above 0."""
        value = self.get(key, default)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not 0 < value < math.inf:
            self.refuse(key, "it must be a number above 0")
        return float(value)

    def flag(self, key: str, *, default: Any = REQUIRED) -> bool:
        """True or false."""
        value = self.get(key, default)
        if not isinstance(value, bool):
            self.refuse(key, "it must be true or false")
        return value

    def only(self, key: str, *allowed: Any) -> None:
        """Refuse a value that is not allowed; null and a missing key are the first one."""
        if self.get(key, allowed[0]) not in allowed:
            self.refuse(key, f"Atlas supports {', '.join(map(repr, allowed))}")

    def refuse(self, key: str, reason: str) -> NoReturn:
        """Stop at a key."""
        raise AtlasError(
            f"{self.source}: {self._prefix}{key} is {_shown(self._values.get(key))}: {reason}"
        )

    def ignored(self, harmless: re.Pattern[str]) -> Iterator[str]:
        """Yield the keys that nobody read and that may be ignored, except those known as harmless.

        A key that may change the computation is refused unless it is off.
        """
        for key, value in self._values.items():
            if key in self._read or harmless.fullmatch(key):
                continue
            if not COMPUTES.search(key):
                yield f"{self._prefix}{key}"
            elif value not in (UNIT if FACTOR.search(key) else OFF) and value is not None:
                self.refuse(key, "Atlas has no such option")


def _shown(value: object) -> str:
    """A value as in JSON, cut."""
    return json.dumps(value, default=str)[:80]


def model_params(options: Mapping[str, Any], source: Path | str) -> ModelParams:
    """Make the section ``model`` of params.yaml, or name the option that it does not allow."""
    try:
        return ModelParams(**options)
    except ValidationError as error:
        details = error.errors()[0]
        key = ".".join(map(str, details["loc"]))
        raise AtlasError(f"{source}: {key} is {options.get(key)}: {details['msg']}") from None
