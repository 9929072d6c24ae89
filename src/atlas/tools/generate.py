"""``atlas generate``: continue a prompt on the terminal, or as JSON."""

import json
import logging
from collections.abc import Sequence
from itertools import chain
from typing import Any

from pydantic import ValidationError

from atlas.errors import AtlasError
from atlas.inference.backends.base import LoadedModel
from atlas.inference.batch import Overflow, TokenSequence
from atlas.inference.sampling import DEFAULT_SAMPLING, Sampling

logger = logging.getLogger(__name__)


def option_name(field: str, prefix: str = "--") -> str:
    """The option for a field of ``Sampling``: ``--top-p``, or ``/top-p`` in a chat."""
    return prefix + field.replace("_", "-")


def update_sampling(
    values: dict[str, Any], base: Sampling = DEFAULT_SAMPLING, prefix: str = "--"
) -> Sampling:
    """Change some sampling options; None keeps the value of ``base``.

    Errors name the option, with the prefix.
    """
    changes = {name: value for name, value in values.items() if value is not None}
    try:
        return Sampling.model_validate(base.model_dump() | changes)
    except ValidationError as error:
        first = error.errors()[0]
        name, allowed = str(first["loc"][0]), first["msg"].removeprefix("Input should be ")
        raise AtlasError(
            f"{option_name(name, prefix)} is {first['input']}: it must be {allowed}"
        ) from None


def print_continuations(
    model: LoadedModel,
    prompt: str,
    sampling: Sampling,
    max_tokens: int,
    stops: Sequence[str],
    count: int,
    on_overflow: Overflow,
    *,
    as_json: bool,
) -> None:
    """Print a prompt and its continuations as they are generated, or as a line of JSON each.

    The continuations have consecutive seeds, and each ends before a stop string.
    """
    ids = model.encode(prompt)
    warn_if_truncated(model, ids)
    for seed in range(sampling.seed, sampling.seed + count):
        sequence = TokenSequence(ids, max_tokens, sampling.model_copy(update={"seed": seed}))
        parts = model.stream(sequence, stops, on_overflow)
        if as_json:
            text = "".join(parts)
            result = {
                "prompt": prompt,
                "text": text,
                "tokens": len(sequence.output_ids),
                "finish_reason": sequence.finish_reason,
                "seed": seed,
            }
            print(json.dumps(result, ensure_ascii=False), flush=True)
            continue
        if count > 1:
            print(f"--- seed {seed}")
        for part in chain([prompt], parts):
            print(part, end="", flush=True)
        print()


def warn_if_truncated(model: LoadedModel, ids: Sequence[int]) -> None:
    """Warn if a prompt is longer than the context."""
    if len(ids) > model.context_length:
        logger.warning(
            "the prompt has %d tokens; the model sees the last %d", len(ids), model.context_length
        )
