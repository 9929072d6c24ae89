"""The arithmetic language: small questions about single digits, in twenty tokens.

    Max 3 7 1 = 7

A question is an operation and two to five digits; its answer is one digit. That is small enough
for a model of seconds to learn, and rich enough to see how: First, Second and Last ask where a
digit stands, Max and Min compare, Evens counts, and Add, Subtract and Multiply compute with the
first digit and the last one.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from atlas.errors import AtlasError
from atlas.pipeline.files import write_records

NAME = "arithmetic.jsonl"
DIGITS = tuple("0123456789")
EQUALS = "="
LENGTHS = range(2, 6)  # digits of a question


# Each answer is one digit: what would be more, or less than nothing, is taken modulo ten.
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
    """The answer to a question such as ``Max 3 7 1 =``.

    Raises:
        ValueError: it is no question of the language.
    """
    match question.split():
        case [operation, *digits, "="] if (
            operation in OPERATIONS and len(digits) in LENGTHS and set(digits) <= set(DIGITS)
        ):
            return str(OPERATIONS[operation]([int(digit) for digit in digits]))
    raise ValueError(
        f"{question!r}: a question is one of {', '.join(OPERATIONS)}, "
        f"{LENGTHS[0]} to {LENGTHS[-1]} digits and {EQUALS}, divided by blanks"
    )


def write_arithmetic(folder: Path, examples: int, seed: int) -> list[str]:
    """Writes so many different examples as arithmetic.jsonl; the source of each is its operation.

    Every operation has the same number of examples, and so has every length, as far as there are
    so many: of the short ones all are taken. Lines are in random order.

    Raises:
        AtlasError: there are not so many.
    """
    most = len(OPERATIONS) * sum(10**length for length in LENGTHS)
    if not 0 < examples <= most:
        raise AtlasError(
            f"corpus.arithmetic.examples is {examples}: give 1 to {most}, the number of questions"
        )
    generator = random.Random(seed)
    questions = [
        (operation, " ".join([operation, *digits, EQUALS]))
        for operation, count in zip(OPERATIONS, _shares(examples, len(OPERATIONS)), strict=True)
        for digits in _digits(count, generator)
    ]
    generator.shuffle(questions)
    write_records(
        folder / NAME,
        ({"source": operation, "text": f"{each} {solve(each)}"} for operation, each in questions),
    )
    return [NAME]


def _digits(count: int, generator: random.Random) -> Iterator[tuple[str, ...]]:
    """So many different rows of digits, evenly over the lengths while the short ones last."""
    for place, length in enumerate(LENGTHS):
        wanted = min(count // (len(LENGTHS) - place), 10**length)
        if place == len(LENGTHS) - 1:
            wanted = count
        count -= wanted
        for number in generator.sample(range(10**length), wanted):
            yield tuple(str(number).zfill(length))


def _shares(total: int, parts: int) -> list[int]:
    """A number in parts that differ by one at the most."""
    return [total // parts + (part < total % parts) for part in range(parts)]
