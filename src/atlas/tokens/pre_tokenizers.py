"""How byte-level tokenizers split a text before they merge bytes, by llama.cpp's names.

A tokenizer.json describes the split as a list of steps, a GGUF file only by a name. Each name here
gives the same split in llama.cpp as in the tokenizers library, for every character of Unicode 14.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from atlas.errors import AtlasError

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
DIGIT = r"\p{N}"
# English contractions. To tokenizers, the first form also matches U+017F for s.
ANY_CASE = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
CONTRACTIONS = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
LONG_S = "\u017f"
LINES_AND_BLANKS = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
WORDS = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+"
PUNCTUATION = r"| ?[^\s\p{L}\p{N}]+[\r\n]*" + LINES_AND_BLANKS
THREE_DIGITS = WORDS + r"|\p{N}{1,3}" + PUNCTUATION
ONE_DIGIT = WORDS + r"|\p{N}" + PUNCTUATION
WITH_MARKS = (
    CONTRACTIONS
    + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
    + LINES_AND_BLANKS
)
CODE = WORDS + r"|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+" + LINES_AND_BLANKS
SENTENCE_ENDS = " ?[^(\\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+"
COVER_ALL = {GPT2, THREE_DIGITS, ONE_DIGIT, WITH_MARKS, CODE}  # match every character of a text


@dataclass(frozen=True)
class PreTokenizer:
    """A way to split texts: each pattern splits the parts that those before it left."""

    name: str  # llama.cpp's
    patterns: tuple[str, ...]
    ignore_merges: bool = False  # a part that is a piece becomes that token, whatever the merges
    has_fast_encoder: bool = True  # gigatoken has its patterns

    def steps(self) -> list[dict[str, Any]]:
        """The steps as in a tokenizer.json."""
        if self.patterns[-1] == GPT2:
            last = byte_level(use_regex=True)
            return [*map(split, self.patterns[:-1]), last]
        return [*map(split, self.patterns), byte_level(use_regex=False)]


PRE_TOKENIZERS = {
    each.name: each
    for each in (
        PreTokenizer("gpt-2", (GPT2,)),
        PreTokenizer("smollm", (DIGIT, GPT2)),
        PreTokenizer("llama-bpe", (THREE_DIGITS,), ignore_merges=True),
        PreTokenizer("dbrx", (THREE_DIGITS,)),
        PreTokenizer("qwen2", (ONE_DIGIT,)),
        PreTokenizer("qwen35", (WITH_MARKS,)),
        PreTokenizer("seed-coder", (CODE,), has_fast_encoder=False),
        PreTokenizer("bloom", (SENTENCE_ENDS,), has_fast_encoder=False),
        PreTokenizer("viking", (SENTENCE_ENDS, DIGIT), has_fast_encoder=False),
    )
}
# Other names that llama.cpp has for the same splits.
ALIASES = {
    "smollm": "starcoder refact command-r codeshell exaone minerva-7b",
    "gpt-2": "phi-2 olmo mpt jais trillion granite-docling gigachat a.x-4.0 mellum modern-bert "
    "exaone4 jina-es jina-de jina-v2-es jina-v2-de",
    "llama-bpe": "llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano",
    "dbrx": "smaug-bpe chatglm-bpe glm4",
    "qwen2": "stablelm2 deepseek-r1-qwen kormo f2llmv2 megrez hunyuan solar-open grok-2",
    "bloom": "poro-chat gpt3-finnish",
}
NAMES = {name: name for name in PRE_TOKENIZERS} | {
    alias: name for name, aliases in ALIASES.items() for alias in aliases.split()
}
SUPPORTED = ", ".join(NAMES)


def split(pattern: str) -> dict[str, Any]:
    """A step that splits by a pattern and keeps all parts."""
    if pattern == DIGIT:
        return {"type": "Digits", "individual_digits": True}
    settings = {"behavior": "Isolated", "invert": False}
    return {"type": "Split", "pattern": {"Regex": pattern}, **settings}


def remove(letters: Sequence[str]) -> dict[str, Any]:
    """A step after ``byte_level`` that removes bytes without a piece.

    llama.cpp leaves them out when everything is merged, tokenizers before, which would make
    neighbors of the bytes around them.
    """
    pattern = {"Regex": f"[{''.join(letters)}]"}
    return {"type": "Split", "pattern": pattern, "behavior": "Removed", "invert": False}


def byte_level(*, use_regex: bool) -> dict[str, Any]:
    """The step that writes bytes as letters, after GPT-2's split if ``use_regex``."""
    settings = {"add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}
    return {"type": "ByteLevel", **settings}


def pre_tokenizer_named(name: str, file: str) -> PreTokenizer:
    """Return the entry with one of llama.cpp's names."""
    if name not in NAMES:
        raise AtlasError(
            f"{file}: its pre-tokenizer {name!r} is not supported; those that are: {SUPPORTED}"
        )
    return PRE_TOKENIZERS[NAMES[name]]


def recognize(
    step: object, missing: Sequence[str], *, ignore_merges: bool, file: str
) -> PreTokenizer:
    """Return the entry that splits as the ``pre_tokenizer`` of a tokenizer.json does.

    ``missing`` are the letters of bytes without a piece, which a step may remove.
    """
    try:
        patterns = tuple(_patterns(step, missing))
    except _UnknownStepError as error:
        raise AtlasError(
            f"{file}: its pre-tokenizer has {error}, which llama.cpp can't follow; supported are "
            f"the splits that llama.cpp calls {SUPPORTED}"
        ) from None
    matching = [each for each in PRE_TOKENIZERS.values() if each.patterns == patterns]
    for each in matching:
        if each.ignore_merges == ignore_merges:
            return each
    if matching:
        raise AtlasError(
            f"{file}: it splits as {matching[0].name}, but with ignore_merges="
            f"{str(ignore_merges).lower()}, which llama.cpp does not combine"
        )
    raise AtlasError(
        f"{file}: its pre-tokenizer splits by {json.dumps(patterns)}, which is none of those that "
        f"llama.cpp calls {SUPPORTED}"
    )


class _UnknownStepError(Exception):
    """A step that splits in a way of its own."""


def _patterns(step: object, missing: Sequence[str]) -> Iterator[str]:
    """Yield the patterns of a step, in the spelling of this module."""
    match step:
        case {"type": "Sequence", "pretokenizers": [*steps]}:
            for each in steps:
                yield from _patterns(each, missing)
        case {"type": "ByteLevel", **settings} if not settings.get("add_prefix_space", True):
            if settings.get("use_regex", True):
                yield GPT2
        case {"type": "Digits", "individual_digits": True}:
            yield DIGIT
        case {"type": "Split"} if missing and step == remove(missing):
            pass
        case {"type": "Split", "pattern": {"Regex": str(regex)}, **settings}:
            yield _checked(_spelled_here(regex), settings)
        case {"type": "ByteLevel"}:
            raise _UnknownStepError("a blank added in front of each text (add_prefix_space)")
        case {"type": str(kind)}:
            raise _UnknownStepError(f"a step {kind} with {json.dumps(step)[:120]}")
        case _:
            raise _UnknownStepError(f"no known step ({json.dumps(step)[:120]})")


def _checked(pattern: str, settings: Mapping[object, Any]) -> str:
    """Accept a pattern whose matches and the parts between them are all kept."""
    behavior, invert = settings.get("behavior"), settings.get("invert", False)
    removed = (behavior, invert) == ("Removed", True)
    if behavior == "Isolated" or (removed and pattern in COVER_ALL):
        return pattern
    raise _UnknownStepError(f"a step Split with behavior {behavior}, invert {invert}")


def _spelled_here(regex: str) -> str:
    """Return a pattern with the spelling of contractions and line ends that this module uses."""
    for found, spelled in ((ANY_CASE, CONTRACTIONS), ("\r", "\\r"), ("\n", "\\n")):
        regex = regex.replace(found, spelled)
    return regex
