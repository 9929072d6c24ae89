"""Continues prompts, token by token."""

from collections.abc import Iterator, Sequence

from atlas.errors import AtlasError
from atlas.inference.batch import Batch, Beyond, Text
from atlas.inference.sampling import Sampling
from atlas.inference.slots import slots_of
from atlas.model.config import ModelConfig
from atlas.model.language_model import LanguageModel


def generate(
    model: LanguageModel,
    prompt: Sequence[int],
    most_tokens: int,
    sampling: Sampling,
    beyond: Beyond = "slide",
) -> Iterator[int]:
    """Yields the ids that continue a prompt, at most ``most_tokens``, up to the end of a text.

    An empty prompt begins a new text, and so does a question, to a model that answers questions.

    Args:
        model: that continues it.
        prompt: ids, of which the model sees the newest ``context_length``.
        most_tokens: at least 1.
        sampling: how tokens are picked.
        beyond: what happens where the context ends, see ``Batch``.

    Raises:
        AtlasError: an encoder-decoder is asked what is no question, or a longer one than it reads;
            the model computes no numbers.
    """
    text = Text(opening(model.config, prompt), most_tokens, sampling)
    batch = Batch(slots_of(model, 1), {model.config.eos}, beyond_of(model.config, beyond))
    for each in batch.grow([text]):
        refuse_failed(each)
        if each.newest is not None:
            yield each.newest.id


def generate_batch(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    most_tokens: int,
    samplings: Sequence[Sampling],
    beyond: Beyond = "slide",
) -> list[list[int]]:
    """What continues each of some prompts, of any lengths, all at once.

    Each is what ``generate`` gives it alone with its own sampling, but for rounding: two tokens
    that are equally likely to the sixth digit may change places.

    Raises:
        AtlasError: as ``generate``.
    """
    texts = [
        Text(opening(model.config, prompt), most_tokens, sampling)
        for prompt, sampling in zip(prompts, samplings, strict=True)
    ]
    slots = slots_of(model, max(1, len(texts)))
    batch = Batch(slots, {model.config.eos}, beyond_of(model.config, beyond))
    for text in batch.grow(texts):
        refuse_failed(text)
    return [text.written for text in texts]


def opening(config: ModelConfig, prompt: Sequence[int]) -> list[int]:
    """The ids that a model reads of a prompt: with the beginning of a text where one begins.

    Raises:
        AtlasError: an encoder-decoder is asked what is no question, or a longer one than it reads.
    """
    if config.kind == "encoder_decoder":
        _check_question(config, prompt)
    return config.with_bos(prompt)


def refuse_failed(text: Text) -> None:
    """Stops where a model computed no numbers.

    Raises:
        AtlasError: it did.
    """
    if text.ended == "failed":
        raise AtlasError("what the model computes are no numbers; train it again")


def beyond_of(config: ModelConfig, beyond: Beyond) -> Beyond:
    """What a model can do where its context ends: without its question there is no answer."""
    return "stop" if config.kind == "encoder_decoder" else beyond


def _check_question(config: ModelConfig, prompt: Sequence[int]) -> None:
    if config.separator not in prompt:
        raise AtlasError(
            "the prompt ends no question, and this model answers questions: end it with the "
            "piece of tokenize.prompt_separator"
        )
    if len(prompt) >= config.context_length:
        raise AtlasError(
            f"the prompt has {len(prompt)} tokens, and with its beginning and answer there must be "
            f"room for it in model.context_length ({config.context_length}): ask a shorter question"
        )
