"""Choose the next token from logits (V,), with pure NumPy functions.

Excluded tokens have the logit -inf. ``process_logits`` applies the options in this order:
penalties and bias, temperature, top-k, top-p, min-p.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from atlas.model.logits import Logits, draw, keep_top_k, keep_top_p, softmax

Ids = npt.NDArray[np.int64]


class Sampling(BaseModel):
    """Sampling options.

    Temperature 0 picks the most likely token, 1 samples from the model's own probabilities. A top-k
    of 0, a top-p of 1, a min-p of 0 and a repetition penalty of 1 have no effect.
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
    def is_greedy(self) -> bool:
        """True if the most likely token is always picked."""
        return self.temperature == 0


DEFAULT_SAMPLING = Sampling()  # varied and mostly sound text
GREEDY = Sampling(temperature=0, top_k=0, top_p=1)


def penalize_repetition(logits: Logits, seen: Ids, penalty: float) -> Logits:
    """Divide the logits (V,) of seen ids by the penalty; multiply negative ones by it.

    From CTRL (arXiv:1909.05858, section 4.1), extended to negative logits as in transformers.
    """
    changed = logits.copy()
    changed[seen] = np.where(logits[seen] > 0, logits[seen] / penalty, logits[seen] * penalty)
    return changed


def penalize_frequency(logits: Logits, seen: Ids, presence: float, frequency: float) -> Logits:
    """Subtract ``presence`` from logits (V,) once per seen id, ``frequency`` per occurrence.

    As in the OpenAI API.
    """
    ids, counts = np.unique(seen, return_counts=True)
    changed = logits.copy()
    changed[ids] -= presence + frequency * counts.astype(np.float32)
    return changed


def add_bias(logits: Logits, bias: Mapping[int, float]) -> Logits:
    """Add a bias to the logits (V,) of some ids."""
    changed = logits.copy()
    changed[list(bias)] += np.array(list(bias.values()), np.float32)
    return changed


def keep_min_p(logits: Logits, p: float) -> Logits:
    """Keep tokens at least p times as likely as the most likely one (arXiv:2407.01082)."""
    if p <= 0:
        return logits
    return np.where(logits < logits.max() + np.float32(np.log(p)), -np.inf, logits)


def log_softmax(logits: Logits) -> Logits:
    """Natural logarithms of the probabilities (V,) of logits (V,)."""
    shifted = logits - logits.max()
    logprobs: Logits = shifted - np.log(np.exp(shifted).sum())
    return logprobs


def most_likely(logits: Logits, count: int) -> Ids:
    """The ids of the ``count`` largest logits (V,), largest first; equal ones by id."""
    if not count:
        return np.array([], np.int64)
    smallest = np.partition(logits, -count)[-count] if count < len(logits) else logits.min()
    found = np.flatnonzero(logits >= smallest)
    return found[np.argsort(-logits[found], kind="stable")[:count]]


def process_logits(
    logits: Logits, sampling: Sampling, prompt: Sequence[int], continuation: Sequence[int]
) -> Logits:
    """Apply all options to the logits (V,) of the token after a prompt and its continuation."""
    if sampling.repetition_penalty != 1:
        seen = np.unique(np.array([*prompt, *continuation], np.int64))
        logits = penalize_repetition(logits, seen, sampling.repetition_penalty)
    if sampling.presence_penalty or sampling.frequency_penalty:
        written = np.array(continuation, np.int64)
        logits = penalize_frequency(
            logits, written, sampling.presence_penalty, sampling.frequency_penalty
        )
    if sampling.logit_bias:
        logits = add_bias(logits, sampling.logit_bias)
    if sampling.is_greedy:
        return logits
    # The maximum is subtracted first so that no logit overflows at a low temperature.
    logits = (logits - logits.max()) / np.float32(max(sampling.temperature, 1e-6))
    logits = keep_top_p(keep_top_k(logits, sampling.top_k), sampling.top_p)
    return keep_min_p(logits, sampling.min_p)


def sampling_probabilities(
    logits: Logits, sampling: Sampling, prompt: Sequence[int], continuation: Sequence[int]
) -> Logits:
    """Probabilities (V,) with which ``next_token`` picks each id."""
    processed = process_logits(logits, sampling, prompt, continuation)
    if sampling.is_greedy:
        processed = np.where(np.arange(len(processed)) == processed.argmax(), processed, -np.inf)
    return softmax(processed)


def next_token(
    logits: Logits,
    sampling: Sampling,
    generator: np.random.Generator,
    prompt: Sequence[int] = (),
    continuation: Sequence[int] = (),
) -> int:
    """Pick the next id from the logits (V,) after a prompt and its continuation."""
    processed = process_logits(logits, sampling, prompt, continuation)
    return int(processed.argmax()) if sampling.is_greedy else draw(processed, generator)
