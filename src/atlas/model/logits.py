"""Sample a token from logits (V,): pure functions in NumPy. V is the vocabulary.

A token with the logit -inf is never drawn.
"""

import numpy as np
import numpy.typing as npt

Logits = npt.NDArray[np.float32]
TINY = np.finfo(np.float32).tiny


def keep_top_k(logits: Logits, k: int) -> Logits:
    """Keep the k largest logits (V,) and every tie with the k-th; the rest become -inf.

    ``k = 0`` keeps all.
    """
    if not 0 < k < len(logits):
        return logits
    smallest = np.partition(logits, -k)[-k]
    return np.where(logits < smallest, -np.inf, logits)


def keep_top_p(logits: Logits, p: float) -> Logits:
    """Keep the most likely tokens until their probabilities reach p; the rest become -inf.

    Nucleus sampling (arXiv:1904.09751).
    """
    if p >= 1:
        return logits
    allowed = np.flatnonzero(logits > -np.inf)
    order = allowed[np.argsort(-logits[allowed], kind="stable")]
    cumulative = np.cumsum(softmax(logits[order]), dtype=np.float64)
    nucleus = order[: int(np.searchsorted(cumulative, p)) + 1]
    kept = np.full_like(logits, -np.inf)
    kept[nucleus] = logits[nucleus]
    return kept


def softmax(logits: Logits) -> Logits:
    """Return the probabilities (V,) of logits (V,)."""
    powers = np.exp(logits - logits.max())
    probabilities: Logits = powers / powers.sum()
    return probabilities


def draw(logits: Logits, generator: np.random.Generator) -> int:
    """Draw an id with the probabilities of logits (V,).

    An exponential race: each id gets a random time with its probability as the rate, and the
    earliest wins. Small rounding differences, such as those between one row and a batch, rarely
    change the winner.
    """
    times = generator.standard_exponential(len(logits), dtype=np.float32)
    winner: np.intp = (softmax(logits) / np.maximum(times, TINY)).argmax()
    return int(winner)
