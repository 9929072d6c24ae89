"""Sampling as a user gives it on a command line: checked, with errors in their words."""

from typing import Any

from pydantic import ValidationError

from atlas.errors import AtlasError
from atlas.generation.sampling import USUAL, Sampling


def option(name: str, prefix: str = "--") -> str:
    """A field of ``Sampling`` as it is typed: ``--top-p``, in a chat ``/top-p``."""
    return prefix + name.replace("_", "-")


def sampling_of(values: dict[str, Any], before: Sampling = USUAL, prefix: str = "--") -> Sampling:
    """A sampling with some values changed; None leaves one as it was.

    Args:
        values: by the names of the fields.
        before: gives the others.
        prefix: of options, for errors.

    Raises:
        AtlasError: a value is not allowed.
    """
    given = {name: value for name, value in values.items() if value is not None}
    try:
        return Sampling.model_validate(before.model_dump() | given)
    except ValidationError as error:
        first = error.errors()[0]
        name, allowed = str(first["loc"][0]), first["msg"].removeprefix("Input should be ")
        raise AtlasError(
            f"{option(name, prefix)} is {first['input']}: it must be {allowed}"
        ) from None
