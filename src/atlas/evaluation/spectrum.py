"""The Fourier spectrum of an embedding of numbers.

A model that has grokked addition modulo p holds its numbers on a few circles: in the Fourier basis
over the numbers, a handful of frequencies has all of the power (Nanda et al. 2023,
arXiv:2301.05217). A model that only knows its training pairs by heart has no such peaks. Products
are sums of logarithms, so for them numbers are put in the order of their discrete logarithms.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from atlas.corpora.modular import OPERATIONS
from atlas.tokens.tokenizer import Tokenizer

Reals = npt.NDArray[np.float64]
PRODUCTS = ("multiply", "divide")
FEWEST_NUMBERS = 5
LARGEST_SHARE = 10  # frequencies whose share of the power is told


def number_ids(tokenizer: Tokenizer, texts: Iterable[str]) -> list[int]:
    """The ids of 0, 1 and so on up to the largest number of some texts.

    Empty if one of them is not a token of its own, or if there are too few for a circle.
    """
    words = {word for text in texts for word in text.split()}
    largest = max((int(word) for word in words if word.isdecimal()), default=0)
    found = [tokenizer.encode(str(number)) for number in range(largest + 1)]
    single = len(found) >= FEWEST_NUMBERS and all(
        len(ids) == 1 and ids[0] != tokenizer.unk for ids in found
    )
    return [ids[0] for ids in found] if single else []


def is_modular(sources: Sequence[str]) -> bool:
    """Whether documents are equations of one modular operation."""
    return len(set(sources)) == 1 and sources[0] in OPERATIONS


def in_circle(numbers: int, operation: str) -> list[int]:
    """The order in which an operation goes round: by value, or by discrete logarithm.

    Where there is no generator, as ``numbers`` is not prime, by value.
    """
    if operation in PRODUCTS:
        for generator in range(2, numbers):
            powers = [pow(generator, exponent, numbers) for exponent in range(numbers - 1)]
            if sorted(powers) == list(range(1, numbers)):
                return powers
    return list(range(numbers))


def spectrum(embedding: Reals) -> pd.DataFrame:
    """The share of the power of each frequency from 1 on; the mean is left out.

    Args:
        embedding: of numbers in the order of the circle, (p, C).

    Returns:
        Columns ``frequency`` (turns over all numbers) and ``share``.
    """
    waves = np.fft.rfft(embedding - embedding.mean(axis=0), axis=0)[1:]  # (p // 2, C)
    power = (np.abs(waves) ** 2).sum(axis=1)
    if len(embedding) % 2 == 0:
        power[:-1] *= 2  # all but the highest stand for two waves, to and fro
    share = power / power.sum()
    return pd.DataFrame({"frequency": np.arange(1, len(share) + 1), "share": share})


def peak_share(table: pd.DataFrame) -> float:
    """The share of the power that the few largest frequencies have."""
    return float(table["share"].nlargest(LARGEST_SHARE).sum())
