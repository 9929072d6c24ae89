"""``atlas generate``: continues a prompt on the terminal, or as JSON.

Sampling as a user gives it on a command line: checked, with errors in their words.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from pydantic import ValidationError

from atlas.errors import AtlasError
from atlas.inference.backends.base import LoadedModel
from atlas.inference.batch import Overflow, TokenSequence
from atlas.inference.sampling import DEFAULT_SAMPLING, Sampling


def option(name: str, prefix: str = "--") -> str:
    """A field of ``Sampling`` as it is typed: ``--top-p``, in a chat ``/top-p``."""
    return prefix + name.replace("_", "-")


def sampling_of(
    values: dict[str, Any], before: Sampling = DEFAULT_SAMPLING, prefix: str = "--"
) -> Sampling:
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


@dataclass(frozen=True)
class Wanted:
    """What is to be written.

    Attributes:
        tokens: the most of each continuation.
        stops: strings before which it ends.
        count: of continuations, with seeds that follow each other.
        on_overflow: what happens where the context ends.
    """

    tokens: int
    stops: Sequence[str] = ()
    count: int = 1
    on_overflow: Overflow = "slide"


def print_continuations(
    opened: LoadedModel, prompt: str, sampling: Sampling, wanted: Wanted, *, as_json: bool
) -> None:
    """Prints a prompt and what continues it as it comes, or a line of JSON for each continuation.

    Raises:
        AtlasError: the prompt is none for this model.
    """
    ids = opened.encode(prompt)
    note_what_is_cut(opened, ids)
    for seed in range(sampling.seed, sampling.seed + wanted.count):
        text = TokenSequence(ids, wanted.tokens, sampling.model_copy(update={"seed": seed}))
        parts = opened.stream(text, wanted.stops, wanted.on_overflow)
        if as_json:
            print(json.dumps(_result(prompt, "".join(parts), text), ensure_ascii=False), flush=True)
            continue
        if wanted.count > 1:
            print(f"--- seed {seed}")
        print_as_it_comes(chain([prompt], parts))


def note_what_is_cut(opened: LoadedModel, ids: Sequence[int]) -> None:
    """Says that a prompt is longer than what the model sees."""
    length = opened.context_length
    if len(ids) > length:
        print(f"note: of {len(ids)} tokens the model sees the last {length}", file=sys.stderr)


def print_as_it_comes(parts: Iterator[str]) -> str:
    """Prints the parts of a text, then ends the line; returns the text."""
    whole = ""
    for part in parts:
        print(part, end="", flush=True)
        whole += part
    print()
    return whole


def _result(prompt: str, written: str, text: TokenSequence) -> dict[str, object]:
    return {
        "prompt": prompt,
        "text": written,
        "tokens": len(text.output_ids),
        "finish_reason": text.finish_reason,
        "seed": text.sampling.seed,
    }
