"""From logits to the next token: pure functions in NumPy. V is the vocabulary.

A token that may not be drawn has the logit -inf. In the order in which ``choices`` applies them:
penalties of what is in the text already, temperature, top-k, top-p, min-p.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from atlas.model.logits import Logits, draw, keep_top_k, keep_top_p

Ids = npt.NDArray[np.int64]


class Sampling(BaseModel):
    """How to pick tokens.

    Attributes:
        temperature: 0 picks the likeliest, 1 samples from the model's own probabilities.
        top_k: sample among the k likeliest; 0 among all.
        top_p: sample among the fewest whose probabilities reach p; 1 among all.
        min_p: sample among those at least p times as likely as the likeliest; 0 among all.
        repetition_penalty: divides what speaks for a token that is in the text; 1 changes nothing.
        presence_penalty: taken from the logit of a token that the continuation has.
        frequency_penalty: taken from it as often as the continuation has it.
        logit_bias: added to the logits of ids.
        seed: of the random choices.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    temperature: Annotated[float, Field(ge=0, le=100)] = 0.8
    top_k: Annotated[int, Field(ge=0)] = 50
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    repetition_penalty: Annotated[float, Field(ge=0.1, le=10)] = 1.0
    presence_penalty: Annotated[float, Field(ge=-100, le=100)] = 0.0
    frequency_penalty: Annotated[float, Field(ge=-100, le=100)] = 0.0
    logit_bias: Mapping[int, Annotated[float, Field(ge=-100, le=100)]] = {}
    seed: Annotated[int, Field(ge=0, lt=2**64)] = 1

    @property
    def draws(self) -> bool:
        """Whether chance has a part in it."""
        return self.temperature > 0


USUAL = Sampling()  # gives varied, sound text
GREEDY = Sampling(temperature=0, top_k=0, top_p=1)


def penalise_repetition(logits: Logits, seen: Ids, penalty: float) -> Logits:
    """Logits (V,) with those of seen ids divided by the penalty, or multiplied where negative.

    From CTRL (arXiv:1909.05858, section 4.1), for both signs as transformers has it.
    """
    changed = logits.copy()
    changed[seen] = np.where(logits[seen] > 0, logits[seen] / penalty, logits[seen] * penalty)
    return changed


def penalise_frequency(logits: Logits, seen: Ids, presence: float, frequency: float) -> Logits:
    """Logits (V,) less ``presence`` for each id seen and ``frequency`` for each time (OpenAI)."""
    ids, counts = np.unique(seen, return_counts=True)
    changed = logits.copy()
    changed[ids] -= presence + frequency * counts.astype(np.float32)
    return changed


def add_bias(logits: Logits, bias: Mapping[int, float]) -> Logits:
    """Logits (V,) with what is given added to those of some ids."""
    changed = logits.copy()
    changed[list(bias)] += np.array(list(bias.values()), np.float32)
    return changed


def keep_min_p(logits: Logits, p: float) -> Logits:
    """Tokens at least p times as likely as the likeliest, the rest -inf (arXiv:2407.01082)."""
    if p <= 0:
        return logits
    return np.where(logits < logits.max() + np.float32(np.log(p)), -np.inf, logits)


def log_softmax(logits: Logits) -> Logits:
    """Natural logarithms of the probabilities (V,) of logits."""
    shifted = logits - logits.max()
    logprobs: Logits = shifted - np.log(np.exp(shifted).sum())
    return logprobs


def choices(
    logits: Logits, sampling: Sampling, prompt: Sequence[int], continuation: Sequence[int]
) -> Logits:
    """Logits (V,) of what may come next, as likely as it should be, after a text of ids."""
    if sampling.repetition_penalty != 1:
        seen = np.unique(np.array([*prompt, *continuation], np.int64))
        logits = penalise_repetition(logits, seen, sampling.repetition_penalty)
    if sampling.presence_penalty or sampling.frequency_penalty:
        written = np.array(continuation, np.int64)
        logits = penalise_frequency(
            logits, written, sampling.presence_penalty, sampling.frequency_penalty
        )
    if sampling.logit_bias:
        logits = add_bias(logits, sampling.logit_bias)
    if not sampling.draws:
        return logits
    # Before the division, so that no logit overflows at a low temperature.
    logits = (logits - logits.max()) / np.float32(max(sampling.temperature, 1e-6))
    logits = keep_top_p(keep_top_k(logits, sampling.top_k), sampling.top_p)
    return keep_min_p(logits, sampling.min_p)


def next_token(
    logits: Logits,
    sampling: Sampling,
    generator: np.random.Generator,
    prompt: Sequence[int] = (),
    continuation: Sequence[int] = (),
) -> int:
    """Picks the id that comes after a text, from the logits (V,) there."""
    left = choices(logits, sampling, prompt, continuation)
    return draw(left, generator) if sampling.draws else int(left.argmax())
