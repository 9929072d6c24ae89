"""Small children's stories from a grammar: plots told in many ways, with consistent characters.

Every story has a hero, a friend, an older person, a problem, failed attempts, help, and an ending
that refers to the problem. ``stories.yaml`` has the plots and the words.
"""

import random
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from atlas.errors import AtlasError
from atlas.pipeline.files import write_records

NAME = "stories.jsonl"
GRAMMAR = Path(__file__).with_name("stories.yaml")
PRONOUNS = {
    "she": {"he": "she", "him": "her", "his": "her", "himself": "herself"},
    "he": {"he": "he", "him": "him", "his": "his", "himself": "himself"},
}
CHILDREN = {"she": "girl", "he": "boy"}
CHILD_SHARE = 0.3
SLOT = re.compile(r"\{(a:)?(\w+)\}")
SENTENCE_ENDS = re.compile(r"(^|[.!?] )\"?$")  # also before an opening quote
NEW_PARAGRAPH = "-"
MAX_TRIES = 1000  # to find a new story


def write_stories(folder: Path, examples: int, seed: int) -> list[str]:
    """Write distinct stories to stories.jsonl; the source of each is its plot.

    The first stories don't depend on ``examples``.
    """
    stories = _different_stories(examples, seed)
    write_records(folder / NAME, ({"source": plot, "text": text} for plot, text in stories))
    return [NAME]


def tell(generator: random.Random) -> tuple[str, str]:
    """Tell a story; return its plot and text."""
    grammar = load_grammar()
    plot = generator.choice(sorted(grammar["plots"]))
    chosen = _choose(grammar["words"], generator)
    scenes = [grammar["openings"], *grammar["plots"][plot], grammar["endings"]]
    lines = [generator.choice(variants) for variants in scenes]
    paragraphs: list[list[str]] = [[]]
    for line in lines:
        if line == NEW_PARAGRAPH:
            paragraphs.append([])
        else:
            paragraphs[-1].append(fill(line, chosen))
    return plot, "\n\n".join(" ".join(paragraph) for paragraph in paragraphs)


def fill(line: str, chosen: Mapping[str, str]) -> str:
    """Fill the slots of a line, with capitals at the start of sentences."""

    def word(slot: re.Match[str]) -> str:
        article, name = slot.groups()
        value = chosen[name[0].lower() + name[1:]]
        if article:
            value = f"{'an' if value[0] in 'aeiou' else 'a'} {value}"
        starts_sentence = SENTENCE_ENDS.search(line[: slot.start()]) or name[0].isupper()
        return value[0].upper() + value[1:] if starts_sentence else value

    return SLOT.sub(word, line)


@cache
def load_grammar() -> dict[str, Any]:
    """Load the words and plots of ``stories.yaml``."""
    return dict(yaml.safe_load(GRAMMAR.read_text(encoding="utf-8")))


def _different_stories(examples: int, seed: int) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    for number in range(examples):
        for attempt in range(MAX_TRIES):
            plot, text = tell(random.Random(f"{seed} {number} {attempt}"))
            if text not in seen:
                break
        else:
            raise AtlasError(
                f"corpus.stories.examples: the grammar has no more than {number} different stories"
            )
        seen.add(text)
        yield plot, text


def _choose(words: Mapping[str, list[str]], generator: random.Random) -> dict[str, str]:
    """Choose the characters and things of a story."""
    chosen = {
        key: generator.choice(words[key])
        for key in words
        if key not in ("she", "he", "animals", "friend_animals")
    }
    gender, other = (generator.choice(("she", "he")) for _ in range(2))
    hero = generator.choice(words[gender])
    friend = generator.choice([name for name in words[other] if name != hero])
    animal = generator.choice(words["animals"])
    is_child = generator.random() < CHILD_SHARE
    return chosen | {
        "hero": hero,
        "friend": friend,
        "kind": CHILDREN[gender] if is_child else animal,
        "friend_kind": generator.choice(words["friend_animals"]),
        **PRONOUNS[gender],
    }
