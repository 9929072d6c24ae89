"""Prompts as a model must read them."""

from collections.abc import Sequence

from atlas.errors import AtlasError
from atlas.inference.batch import Overflow
from atlas.model.config import ModelConfig


def prepare_prompt(config: ModelConfig, ids: Sequence[int]) -> list[int]:
    """Add the token that begins a text where the model expects it; an empty prompt gets it always.

    Raises:
        AtlasError: the model is an encoder-decoder and the prompt is not a question, or leaves no
            room for an answer.
    """
    if config.kind == "encoder_decoder":
        _check_question(config, ids)
    return config.with_bos(ids)


def supported_overflow(config: ModelConfig, on_overflow: Overflow) -> Overflow:
    """``on_overflow``, except that an encoder-decoder stops: its answer needs the question."""
    return "stop" if config.kind == "encoder_decoder" else on_overflow


def _check_question(config: ModelConfig, ids: Sequence[int]) -> None:
    if config.separator not in ids:
        raise AtlasError(
            "the prompt is not a question, and this model only answers questions: end it with "
            "tokenize.prompt_separator"
        )
    if len(ids) >= config.context_length:
        raise AtlasError(
            f"the prompt has {len(ids)} tokens; with one to begin it and its answer it must fit in "
            f"model.context_length ({config.context_length}): ask a shorter question"
        )
