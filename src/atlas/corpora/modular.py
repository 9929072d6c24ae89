"""Modular arithmetic: an equation for every pair of numbers.

    12 + 90 = 5

Grokking was discovered on this task (Power et al. 2022): trained on a part of all pairs, a model
first memorizes them and much later suddenly generalizes to the others. ``clean.val`` is the share
of held-out pairs.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from atlas.errors import AtlasError
from atlas.pipeline.files import write_records

NAME = "modular.jsonl"
# The sign between the numbers, and the result before the modulo.
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
    """Write modular.jsonl: an equation per line, numbers and signs separated by spaces."""
    if modulus < 2:
        raise AtlasError(f"corpus.modular.modulus is {modulus}: it must be 2 or more")
    if operation == "divide" and not _is_prime(modulus):
        raise AtlasError(
            f"corpus.modular.modulus is {modulus}: corpus.modular.operation=divide needs a prime "
            "such as 97, because only then every number has an inverse"
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
