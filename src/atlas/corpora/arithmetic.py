"""Two small languages of numbers: arithmetic and modular.

A question of the arithmetic language is an operation and two to five digits, and the answer is one
digit, in twenty tokens::

    Max 3 7 1 = 7

That is small enough to learn in seconds and rich enough to study how: First, Second and Last copy
a digit by position, Max and Min compare, Evens counts, and Add, Subtract and Multiply compute with
the first and the last digit.

Modular arithmetic has an equation for every pair of numbers::

    12 + 90 = 5

Grokking was discovered on this task (Power et al. 2022): trained on some of the pairs, a model
first memorizes them and much later suddenly generalizes to the rest. ``clean.val`` is the share
of held-out pairs.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import isqrt
from pathlib import Path

from atlas.errors import AtlasError
from atlas.pipeline.files import write_records

NAME, MODULAR_NAME = "arithmetic.jsonl", "modular.jsonl"
DIGITS = tuple("0123456789")
EQUALS = "="
LENGTHS = range(2, 6)  # digits per question
# Answers are taken modulo 10, so that each is one digit.
OPERATIONS: Mapping[str, Callable[[Sequence[int]], int]] = {
    "First": lambda digits: digits[0],
    "Second": lambda digits: digits[1],
    "Last": lambda digits: digits[-1],
    "Max": max,
    "Min": min,
    "Evens": lambda digits: sum(digit % 2 == 0 for digit in digits),
    "Add": lambda digits: (digits[0] + digits[-1]) % 10,
    "Subtract": lambda digits: (digits[0] - digits[-1]) % 10,
    "Multiply": lambda digits: digits[0] * digits[-1] % 10,
}
VOCABULARY = (*DIGITS, EQUALS, *OPERATIONS)  # twenty tokens
# Of modular arithmetic: the sign between the numbers, and the result before the modulo.
MODULAR_OPERATIONS: Mapping[str, tuple[str, Callable[[int, int, int], int]]] = {
    "add": ("+", lambda a, b, _p: a + b),
    "subtract": ("-", lambda a, b, _p: a - b),
    "multiply": ("*", lambda a, b, _p: a * b),
    "divide": ("/", lambda a, b, p: a * pow(b, -1, p)),
    "square_sum": ("@", lambda a, b, _p: a**2 + b**2),
    "quadratic": ("#", lambda a, b, _p: a**2 + a * b + b**2),
    "cubic": ("&", lambda a, b, _p: a**3 + a * b**2 + b),
}


def solve(question: str) -> str:
    """Answer a question such as ``Max 3 7 1 =``."""
    match question.split():
        case [operation, *digits, "="] if (
            operation in OPERATIONS and len(digits) in LENGTHS and set(digits) <= set(DIGITS)
        ):
            return str(OPERATIONS[operation]([int(digit) for digit in digits]))
    raise ValueError(
        f"{question!r}: a question is one of {', '.join(OPERATIONS)}, "
        f"{LENGTHS[0]} to {LENGTHS[-1]} digits and {EQUALS}, separated by spaces"
    )


def write_arithmetic(folder: Path, examples: int, seed: int) -> list[str]:
    """Write distinct examples to arithmetic.jsonl in random order; the source is the operation.

    Operations get equally many examples, and so do lengths until the short questions run out.
    """
    available = len(OPERATIONS) * sum(10**length for length in LENGTHS)
    if not 0 < examples <= available:
        raise AtlasError(
            f"corpus.arithmetic.examples is {examples}: it must be 1 to {available}, the number of "
            "different questions"
        )
    generator = random.Random(seed)
    questions = [
        (operation, " ".join([operation, *digits, EQUALS]))
        for number, operation in enumerate(OPERATIONS)
        for digits in _digits(
            (examples + len(OPERATIONS) - 1 - number) // len(OPERATIONS), generator
        )
    ]
    generator.shuffle(questions)
    write_records(
        folder / NAME,
        ({"source": operation, "text": f"{each} {solve(each)}"} for operation, each in questions),
    )
    return [NAME]


def _digits(count: int, generator: random.Random) -> Iterator[tuple[str, ...]]:
    """Draw distinct sequences of digits, evenly over lengths until the short ones run out."""
    for index, length in enumerate(LENGTHS):
        lengths_left = len(LENGTHS) - index
        size = min(count // lengths_left, 10**length) if lengths_left > 1 else count
        count -= size
        for number in generator.sample(range(10**length), size):
            yield tuple(str(number).zfill(length))


def write_modular(folder: Path, operation: str, modulus: int) -> list[str]:
    """Write modular.jsonl: an equation per line, numbers and signs separated by spaces."""
    if modulus < 2:
        raise AtlasError(f"corpus.modular.modulus is {modulus}: it must be 2 or more")
    if operation == "divide" and any(modulus % n == 0 for n in range(2, isqrt(modulus) + 1)):
        raise AtlasError(
            f"corpus.modular.modulus is {modulus}: corpus.modular.operation=divide needs a prime "
            "such as 97, because only then every number has an inverse"
        )
    sign, result = MODULAR_OPERATIONS[operation]
    equations = (
        f"{a} {sign} {b} = {result(a, b, modulus) % modulus}"
        for a in range(modulus)
        for b in range(operation == "divide", modulus)
    )
    write_records(
        folder / MODULAR_NAME, ({"source": operation, "text": text} for text in equations)
    )
    return [MODULAR_NAME]
