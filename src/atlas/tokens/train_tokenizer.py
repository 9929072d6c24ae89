"""Trains a tokenizer on clean documents.

The set-up is the one that was measured to give llama.cpp the same ids on every string: bytes
for what has no piece, no normalisation, no blank put in front, blanks kept, each line end and
tab a piece of its own. It is lossless, but for U+2581, which sentencepiece uses as the blank.
"""

import io
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

from atlas.cleaning.documents import Document
from atlas.errors import AtlasError
from atlas.params import TokenizerParams
from atlas.tokens.tokenizer import END_OF_TEXT, MODEL_FILE, Tokenizer

VOCABULARY_FILE = "vocabulary.tsv"  # for people: id, piece, score
LONGEST_LINE = 4096  # characters; sentencepiece counts positions in a word in 16 bits
UNKNOWN_ID, END_OF_TEXT_ID = 0, 1


def train_tokenizer(
    documents: Iterable[Document], tokenizer: TokenizerParams, folder: Path
) -> Tokenizer:
    """Learns the pieces of a vocabulary and writes the model below ``folder``.

    Raises:
        AtlasError: the text has too few or too many characters for the vocabulary asked for.
    """
    model = io.BytesIO()
    try:
        SentencePieceTrainer.train(
            sentence_iterator=_lines(documents),
            model_writer=model,
            model_type=tokenizer.kind,
            vocab_size=tokenizer.vocab_size,
            character_coverage=tokenizer.character_coverage,
            split_digits=tokenizer.split_digits,
            byte_fallback=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=False,
            allow_whitespace_only_pieces=True,
            user_defined_symbols=["\n", "\t"],
            unk_id=UNKNOWN_ID,
            eos_id=END_OF_TEXT_ID,
            eos_piece=END_OF_TEXT,
            bos_id=-1,
            pad_id=-1,
            hard_vocab_limit=tokenizer.kind == "bpe",
            max_sentence_length=8 * LONGEST_LINE,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise AtlasError(_explain(str(error), tokenizer)) from None
    folder.mkdir(parents=True)
    (folder / MODEL_FILE).write_bytes(model.getvalue())
    trained = Tokenizer.load(folder)
    _write_vocabulary(trained.processor, folder / VOCABULARY_FILE)
    return trained


def measure(tokenizer: Tokenizer, documents: Iterable[Document]) -> dict[str, int | float]:
    """How well a tokenizer does on documents: bytes per token, round-trip losses."""
    tokens = size = losses = 0
    for document in documents:
        ids = tokenizer.encode(document.text)
        tokens += len(ids)
        size += len(document.text.encode())
        losses += tokenizer.decode(ids) != document.text
    return {
        "vocab_size": tokenizer.vocab_size,
        "val_bytes_per_token": size / tokens,
        "val_round_trip_losses": losses,
    }


def _lines(documents: Iterable[Document]) -> Iterator[str]:
    """Lines with their ends: a line end is a piece of its own, so nothing spans it."""
    for document in documents:
        for line in document.text.split("\n"):
            whole = line + "\n"
            for start in range(0, len(whole), LONGEST_LINE):
                yield whole[start : start + LONGEST_LINE]


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
            "or lower tokenizer.character_coverage (the rarest characters become bytes)"
        )
    return f"tokenizer: sentencepiece could not train on this text: {message}"


def _write_vocabulary(processor: SentencePieceProcessor, path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for identity in range(processor.vocab_size()):
            piece = processor.id_to_piece(identity).encode("unicode_escape").decode()
            file.write(f"{identity}\t{piece}\t{processor.get_score(identity):g}\n")
