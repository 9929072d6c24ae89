"""Modular arithmetic: every pair of numbers and what an operation makes of it.

    12 + 90 = 5

The task on which grokking was found (Power et al. 2022): trained on a part of all pairs, a model
first knows those by heart and much later, all at once, the others. ``clean.val`` is the part that
is held out.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from atlas.errors import AtlasError
from atlas.pipeline.files import write_records

NAME = "modular.jsonl"
# The sign between the numbers, and the result before it is taken modulo p.
OPERATIONS: Mapping[str, tuple[str, Callable[[int, int, int], int]]] = {
    "add": ("+", lambda a, b, _p: a + b),
    "subtract": ("-", lambda a, b, _p: a - b),
    "multiply": ("*", lambda a, b, _p: a * b),
    "divide": ("/", lambda a, b, p: a * pow(b, -1, p)),
    "square_sum": ("@", lambda a, b, _p: a**2 + b**2),
    "quadratic": ("#", lambda a, b, _p: a**2 + a * b + b**2),
    "cubic": ("&", lambda a, b, _p: a**3 + a * b**2 + b),
}


def write_modular(folder: Path, operation: str, modulus: int) -> list[str]:
    """Writes modular.jsonl: an equation a line, numbers and signs divided by blanks.

    Raises:
        AtlasError: the modulus is too small, or not prime where the operation divides.
    """
    if modulus < 2:
        raise AtlasError(f"corpus.modular.modulus is {modulus}: it must be 2 or more")
    if operation == "divide" and not _is_prime(modulus):
        raise AtlasError(
            f"corpus.modular.modulus is {modulus}: corpus.modular.operation=divide needs a prime "
            "such as 97, as not every number has an inverse modulo others"
        )
    sign, result = OPERATIONS[operation]
    equations = (
        f"{a} {sign} {b} = {result(a, b, modulus) % modulus}"
        for a in range(modulus)
        for b in range(operation == "divide", modulus)
    )
    write_records(folder / NAME, ({"source": operation, "text": text} for text in equations))
    return [NAME]


def _is_prime(number: int) -> bool:
    return all(number % divisor for divisor in range(2, int(number**0.5) + 1))
