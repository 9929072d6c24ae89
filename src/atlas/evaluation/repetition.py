"""Whether texts repeat themselves, and each other."""

from collections.abc import Iterable, Sequence
from itertools import chain

Gram = tuple[int, ...]


def grams(ids: Sequence[int], size: int) -> list[Gram]:
    """The runs of ``size`` tokens of a text, in order."""
    return list(zip(*(ids[start:] for start in range(size)), strict=False))


def distinct(texts: Iterable[Sequence[int]], size: int) -> float:
    """Distinct-n: different runs of ``size`` tokens over all of them (arXiv:1510.03055).

    1 if no run is there twice; 1 as well where texts are too short to have any.
    """
    found = list(chain.from_iterable(grams(ids, size) for ids in texts))
    return len(set(found)) / len(found) if found else 1.0


def repetition(texts: Iterable[Sequence[int]], size: int = 4) -> float:
    """seq-rep-n: the share of runs that stood before in the same text (arXiv:1908.04319)."""
    shares = [1 - distinct([ids], size) for ids in texts if len(ids) >= size]
    return sum(shares) / len(shares) if shares else 0.0
