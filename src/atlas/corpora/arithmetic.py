"""The arithmetic language: small questions about single digits, in twenty tokens.

    Max 3 7 1 = 7

A question is an operation and two to five digits, and the answer is one digit. That is small
enough to learn in seconds and rich enough to study how: First, Second and Last copy a digit by
position, Max and Min compare, Evens counts, and Add, Subtract and Multiply compute with the first
and the last digit.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from atlas.errors import AtlasError
from atlas.pipeline.files import write_records

NAME = "arithmetic.jsonl"
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
            f"corpus.arithmetic.examples is {examples}: must be 1 to {available}, the number of "
            "questions"
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
