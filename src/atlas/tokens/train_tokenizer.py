"""Trains a tokenizer on clean documents, or takes a given one.

The set-ups are those that were measured to give llama.cpp the same ids. None normalises, none
removes blanks, and each line end and tab is a piece of its own.

======= =================================================== ==============================
kind    pieces                                              what has no piece
======= =================================================== ==============================
bpe     merges of characters, by frequency                  becomes its bytes
char    characters                                          becomes its bytes
unigram those that make the text likeliest (arXiv:1804.10959) becomes ``<unk>``
word    whole words between white space                     becomes ``<unk>``
======= =================================================== ==============================

BPE and characters are lossless, but for U+2581, which sentencepiece uses as the blank.
"""

import io
import random
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from sentencepiece import SentencePieceTrainer
from sentencepiece.sentencepiece_model_pb2 import ModelProto

from atlas.cleaning.documents import Document, read_documents
from atlas.errors import AtlasError
from atlas.params.schema import TokenizerParams
from atlas.pipeline.files import files_below
from atlas.tokens.compatibility import GRID
from atlas.tokens.tokenizer import END_OF_TEXT, PADDING, SPACE_MARK, Tokenizer, single_blanks

LONGEST_LINE = 4096  # characters; sentencepiece counts positions in a word in 16 bits
UNKNOWN_ID, END_OF_TEXT_ID, PADDING_ID = 0, 1, 2
UNKNOWN_MARK = "\u2585"
REPLACEMENT = "\ufffd"
NO_TEXT = ("sentences_.empty()", "all_chars_count", "no pieces are loaded")  # says sentencepiece
ALONE = ("\n", "\t")
STRAY = f"{SPACE_MARK}\n"
WITH_BYTES: dict[str, Any] = {"byte_fallback": True}
# What each kind needs beside the common set-up.
SETUPS: dict[str, dict[str, Any]] = {
    "bpe": WITH_BYTES | {"hard_vocab_limit": True},
    "char": WITH_BYTES | {"hard_vocab_limit": False},
    "unigram": {"hard_vocab_limit": True, "unk_surface": REPLACEMENT},
    "word": {
        "user_defined_symbols": ["\n"],
        "hard_vocab_limit": False,
        "unk_surface": f" {REPLACEMENT}",
        "character_coverage": 1.0,
        "add_dummy_prefix": True,
        "remove_extra_whitespaces": True,
    },
}


def make_tokenizer(documents: Path, tokenizer: TokenizerParams) -> Tokenizer:
    """Takes the model file at ``tokenizer.path``, or trains one if that is a folder."""
    given = Path(tokenizer.path)
    if given.is_dir():
        for file in sorted(given.iterdir()):
            if not file.name.startswith("."):
                raise AtlasError(
                    f"tokenizer.path: {given} holds {file.name}: name the file itself "
                    f"(tokenizer.path={file}), or an empty folder to train a tokenizer"
                )
        return train_tokenizer(sample_lines(documents, tokenizer), tokenizer)
    return Tokenizer.load(given)


def train_tokenizer(lines: Iterable[str], tokenizer: TokenizerParams) -> Tokenizer:
    """Learns the pieces of a vocabulary.

    Args:
        lines: of the text, with their ends.
        tokenizer: the kind, and how many pieces.

    Raises:
        AtlasError: the text has too few or too many characters for the vocabulary asked for.
    """
    model = io.BytesIO()
    setup: dict[str, Any] = {
        "model_type": tokenizer.kind,
        "vocab_size": tokenizer.vocab_size,
        "character_coverage": tokenizer.character_coverage,
        "split_digits": tokenizer.split_digits,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "add_dummy_prefix": False,
        "allow_whitespace_only_pieces": True,
        "user_defined_symbols": list(ALONE),
        "unk_id": UNKNOWN_ID,
        "eos_id": END_OF_TEXT_ID,
        "eos_piece": END_OF_TEXT,
        "pad_id": PADDING_ID,
        "pad_piece": PADDING,
        "bos_id": -1,
        "max_sentence_length": 8 * LONGEST_LINE,
        "minloglevel": 2,
    }
    if tokenizer.kind == "word":
        lines = map(single_blanks, lines)
        setup["vocab_size"] += 1  # the stray piece
    try:
        SentencePieceTrainer.train(
            sentence_iterator=iter(lines), model_writer=model, **(setup | SETUPS[tokenizer.kind])
        )
    except RuntimeError as error:
        raise AtlasError(_explain(str(error), tokenizer)) from None
    finish = {"unigram": on_a_grid, "word": without_stray_piece}.get(tokenizer.kind, bytes)
    return Tokenizer(finish(model.getvalue()))


def on_a_grid(model: bytes) -> bytes:
    """A unigram model whose scores are multiples of 1/256.

    The likeliest cut of a text is then the same whether its parts are added up in double precision
    (llama.cpp), word by word (Atlas), or in single precision (sentencepiece) as far as that holds
    such multiples, up to a sum of 65,536. Line ends and tabs become ordinary pieces: user-defined
    ones have scores that are no such multiples.
    """
    spec = ModelProto.FromString(model)
    for piece in spec.pieces:
        if piece.piece in ALONE:
            piece.type, piece.score = piece.NORMAL, 0
        piece.score = round(piece.score * GRID) / GRID
    changed: bytes = spec.SerializeToString()
    return changed


def without_stray_piece(model: bytes) -> bytes:
    """A model of words without the line end with a blank in front, which training adds."""
    spec = ModelProto.FromString(model)
    spec.pieces.remove(next(piece for piece in spec.pieces if piece.piece == STRAY))
    changed: bytes = spec.SerializeToString()
    return changed


def sample_lines(folder: Path, tokenizer: TokenizerParams) -> Iterator[str]:
    """The lines of the documents of a folder; of a large corpus a random sample, always the same.

    sentencepiece holds all that it learns from in memory, so that is bounded.
    """
    size = sum(file.stat().st_size for file in files_below(folder))
    share = tokenizer.sample_megabytes * 1e6 / max(size, 1)
    return draw(lines_of(read_documents(folder)), share, tokenizer.seed)


def lines_of(documents: Iterable[Document]) -> Iterator[str]:
    """Lines with their ends: a line end is a piece of its own, so nothing spans it.

    U+2585 is left out, as sentencepiece learns nothing from a line that holds it.
    """
    for document in documents:
        for line in document.text.replace(UNKNOWN_MARK, "").split("\n"):
            yield from _cut(line + "\n")


def _cut(line: str) -> Iterator[str]:
    """A line in parts of bounded length, cut before blanks if it has any."""
    start = 0
    while len(line) - start > LONGEST_LINE:
        blank = line.rfind(" ", start + 1, start + LONGEST_LINE)
        stop = blank if blank > start else start + LONGEST_LINE
        yield line[start:stop]
        start = stop
    yield line[start:]


def draw(lines: Iterable[str], share: float, seed: int) -> Iterator[str]:
    """About a share of the lines, each drawn for itself; all from a share of 1 on."""
    generator = random.Random(seed)  # noqa: S311 - a sample, no secret
    return (line for line in lines if share >= 1 or generator.random() < share)


def round_trip_losses(tokenizer: Tokenizer, documents: Iterable[Document]) -> int:
    """How many documents do not come back from their ids."""
    return sum(tokenizer.decode(tokenizer.encode(each.text)) != each.text for each in documents)


def _explain(message: str, tokenizer: TokenizerParams) -> str:
    asked = f"tokenizer.vocab_size is {tokenizer.vocab_size}"
    if too_high := re.search(r"Vocabulary size too high .*<= (\d+)", message):
        return (
            f"{asked}, but the training text has pieces for {too_high[1]} at the most: "
            f"set it to {too_high[1]} or less, or use more text"
        )
    if too_low := re.search(r"smaller than required_chars. \d+ vs (\d+)", message):
        return (
            f"{asked}, but the characters of the text alone need {too_low[1]}: set it to more, "
            "or lower tokenizer.character_coverage (the rarest characters become "
            f"{'bytes' if tokenizer.kind in ('bpe', 'char') else 'unknown'})"
        )
    if any(sign in message for sign in NO_TEXT):
        return (
            "tokenizer: the training split holds no text to learn from: look at data/clean/"
            "rejected.jsonl, and at clean.val, clean.test and clean.split_by"
        )
    return f"tokenizer: sentencepiece could not train on this text: {message}"
