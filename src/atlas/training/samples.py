"""What the model writes while it is being trained."""

from collections.abc import Iterable
from functools import partial

from atlas.errors import one_line
from atlas.generation.generate import generate
from atlas.generation.prompts import beginnings
from atlas.generation.sampling import USUAL
from atlas.model.language_model import LanguageModel
from atlas.tokens.split import TokenSplit
from atlas.tokens.tokenizer import Tokenizer


class Sampler:
    """Continues the beginning of one val document, always the same, with the model of now.

    Its random numbers are its own, so that it never changes training.
    """

    def __init__(
        self, model: LanguageModel, tokenizer: Tokenizer, val: TokenSplit, tokens: int
    ) -> None:
        self._prompt = (beginnings(val, 1) or [[]])[0]
        self._tokenizer = tokenizer
        self._continue = partial(generate, model, self._prompt, tokens, USUAL)
        self._model = model

    def __call__(self) -> str:
        """A text."""
        with self._model.evaluating():
            ids = [*self._prompt, *self._continue()]
        return self._tokenizer.decode(ids)


def page_of(samples: Iterable[tuple[int, str]]) -> str:
    """The samples of a training, a line each, as Markdown."""
    lines = [f"| {step} | {one_line(text).replace('|', chr(92) + '|')} |" for step, text in samples]
    return "\n".join(["| step | sample |", "| --- | --- |", *lines]) + "\n"
