"""Train a tokenizer on clean documents, or load a user-supplied one.

With these settings, llama.cpp gives the same ids, as tests show. None of them normalizes text or
removes blanks. Except in byte-level BPE, each line end and tab is a piece of its own.

======== ======================================================== =====================
kind     pieces                                                   characters without one
======== ======================================================== =====================
bpe      characters, merged by frequency                          become bytes
byte_bpe bytes, merged by frequency                               there are none
char     single characters                                        become bytes
unigram  most probable pieces for the text (arXiv:1804.10959)     become ``<unk>``
word     whole words between white space                          become ``<unk>``
======== ======================================================== =====================

Byte-level BPE is lossless. So are BPE and char, except for U+2581, which sentencepiece uses for
blanks.
"""

import io
import json
import logging
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import chain, groupby, islice, repeat, tee
from pathlib import Path
from typing import Any

from sentencepiece import SentencePieceTrainer
from sentencepiece.sentencepiece_model_pb2 import ModelProto
from tokenizers import Tokenizer as Tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from atlas.cleaning.documents import Document, read_documents
from atlas.errors import AtlasError
from atlas.params.mixture import visits_per_epoch
from atlas.params.schema import FIXED_PIECES, MixEntry, TokenizerParams
from atlas.pipeline.files import files_below
from atlas.tokens.byte_level import TOKENIZER_FILE, ByteLevelTokenizer
from atlas.tokens.conversations import ConversationEncoder, marks
from atlas.tokens.pre_tokenizers import pre_tokenizer_named
from atlas.tokens.roles import Roles, role_files
from atlas.tokens.sentencepiece import MODEL_FILE, TEXT, SentencePieceTokenizer, single_blanks
from atlas.tokens.tokenizer import END_OF_TEXT, PADDING, SPACE_MARK, Tokenizer

MAX_LINE = 4096  # characters; sentencepiece counts positions in a word in 16 bits
REPLACEMENT = "\ufffd"
JOINED_LINES = 1000
NO_TEXT_TO_LEARN = (
    "tokenizer: the training split has no text to learn from; check data/clean/rejected.jsonl, and "
    "clean.val, clean.test and clean.split_by"
)
# From sentencepiece's messages about a text without content.
NO_TEXT = ("sentences_.empty()", "all_chars_count", "no pieces are loaded")
SINGLE = ("\n", "\t")  # always pieces of their own
SCORE_STEPS = 256  # per 1.0 of a unigram score; float32 sums such scores exactly up to 65,536
INSPECTED = 1000  # documents searched for line ends
logger = logging.getLogger(__name__)
WITH_BYTES: dict[str, Any] = {"byte_fallback": True}
# Settings of each kind, in addition to the common ones.
SETTINGS: dict[str, dict[str, Any]] = {
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


def make_tokenizer(
    documents: Path,
    params: TokenizerParams,
    mix: Sequence[MixEntry] | None = None,
    template: str | None = None,
) -> Tokenizer:
    """Load the tokenizer at ``tokenizer.path``, or train one if that is an empty folder.

    The marks of a chat template become its special tokens, or must be among those of a given one.
    """
    path = Path(params.path)
    if path.is_dir() and not any((path / name).is_file() for name in (TOKENIZER_FILE, MODEL_FILE)):
        for file in sorted(path.iterdir()):
            if not file.name.startswith("."):
                raise AtlasError(
                    f"tokenizer.path: the folder {path} contains {file.name}: give that file "
                    f"(tokenizer.path={file}), or an empty folder to train a tokenizer"
                )
        return train_tokenizer(sample_lines(documents, params, mix), params, template)
    if path.is_file() and path.suffix != ".gguf" and (names := role_files(path.parent)):
        logger.warning(
            "tokenizer.path is one file, so DVC does not watch %s next to it, which tell the roles "
            "of its special tokens; name the folder instead: tokenizer.path=%s",
            ", ".join(names),
            path.parent,
        )
    tokenizer = Tokenizer.load(path)
    return tokenizer if template is None else with_template(tokenizer, template)


def with_template(tokenizer: Tokenizer, template: str) -> Tokenizer:
    """Give a tokenizer a chat template, whose marks must be special tokens of it."""
    lacks = [mark for mark in marks(template) if mark not in tokenizer.special_ids]
    if lacks:
        raise AtlasError(
            f"chat.template: its mark {lacks[0]} is no special token of the tokenizer; take a "
            f"template of its own marks ({', '.join(list(tokenizer.special_ids)[:8])}), or train a "
            "tokenizer (tokenizer.path=models/own)"
        )
    end = tokenizer.piece(ConversationEncoder(tokenizer, template).end_of_turn())
    return tokenizer.with_roles(
        replace(
            tokenizer.roles,
            ends=tuple(dict.fromkeys((*tokenizer.roles.ends, end))),
            chat_template=template,
        )
    )


def train_tokenizer(
    lines: Iterable[str], params: TokenizerParams, template: str | None = None
) -> Tokenizer:
    """Train a tokenizer on lines with their ends, for conversations in this template if given."""
    special = [each for each in marks(template or "") if each not in (END_OF_TEXT, PADDING)]
    train = train_byte_level if params.kind == "byte_bpe" else train_sentencepiece
    tokenizer = train(lines, params, special)
    return tokenizer if template is None else with_template(tokenizer, template)


def train_sentencepiece(
    lines: Iterable[str], params: TokenizerParams, special: Sequence[str] = ()
) -> SentencePieceTokenizer:
    """Train a sentencepiece model on lines with their ends; ``special`` names further tokens."""
    model = io.BytesIO()
    settings: dict[str, Any] = {
        "model_type": params.kind,
        "vocab_size": params.vocab_size,
        "character_coverage": params.character_coverage,
        "split_digits": params.split_digits,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "add_dummy_prefix": False,
        "allow_whitespace_only_pieces": True,
        "user_defined_symbols": list(SINGLE),
        "control_symbols": list(special),
        "unk_id": 0,
        "eos_id": 1,
        "eos_piece": END_OF_TEXT,
        "pad_id": 2,
        "pad_piece": PADDING,
        "bos_id": -1,
        "max_sentence_length": 8 * MAX_LINE,
        "minloglevel": 2,
    }
    if params.kind == "word":
        lines = map(single_blanks, lines)
        settings["vocab_size"] += 1  # for the stray piece
    settings |= SETTINGS[params.kind]
    try:
        SentencePieceTrainer.train(sentence_iterator=iter(lines), model_writer=model, **settings)
    except RuntimeError as error:
        raise AtlasError(_explain(str(error), params)) from None
    spec = ModelProto.FromString(model.getvalue())
    match params.kind:
        case "unigram":
            round_scores(spec)
        case "word":  # training adds a line end with a blank before it
            spec.pieces.remove(
                next(piece for piece in spec.pieces if piece.piece == f"{SPACE_MARK}\n")
            )
        case _:
            return SentencePieceTokenizer(model.getvalue())
    return SentencePieceTokenizer(spec.SerializeToString())


def train_byte_level(
    lines: Iterable[str], params: TokenizerParams, special: Sequence[str] = ()
) -> ByteLevelTokenizer:
    """Train byte-level BPE on lines with their ends.

    Lines are joined again, since a piece may hold several line ends. Memory is bounded by the
    number of distinct parts of the text.
    """
    pre = pre_tokenizer_named(params.pre_tokenizer, "tokenizer.pre_tokenizer")
    untrained = Tokenizers(models.BPE(ignore_merges=pre.ignore_merges))
    untrained.decoder = decoders.ByteLevel()
    steps = {"type": "Sequence", "pretokenizers": pre.steps()}
    fast = Tokenizers.from_str(
        json.dumps(json.loads(untrained.to_str()) | {"pre_tokenizer": steps})
    )
    trainer = trainers.BpeTrainer(
        vocab_size=params.vocab_size,
        special_tokens=[END_OF_TEXT, PADDING, *special],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    fast.train_from_iterator(_joined(lines), trainer)
    if (size := fast.get_vocab_size()) == FIXED_PIECES["byte_bpe"] + len(special):
        raise AtlasError(NO_TEXT_TO_LEARN)
    if size < params.vocab_size:
        raise AtlasError(_too_high(params.vocab_size, size))
    ends = (END_OF_TEXT,)
    roles = Roles(END_OF_TEXT, END_OF_TEXT, PADDING, None, ends, add_bos=False)
    return ByteLevelTokenizer(fast.to_str(pretty=True).encode(), roles)


def _joined(lines: Iterable[str]) -> Iterator[str]:
    """Join lines to texts of some size."""
    lines = iter(lines)
    while text := "".join(islice(lines, JOINED_LINES)):
        yield text


def round_scores(spec: ModelProto) -> None:
    """Round the scores of a unigram model to multiples of 1/256.

    The sum of such scores is exact, so the most probable split of a text is the same whether they
    are added in double precision (llama.cpp), unit by unit (Atlas), or in single precision
    (sentencepiece, exact up to a sum of 65,536). Line ends and tabs become ordinary pieces, as the
    scores of user-defined ones are not such multiples.
    """
    for piece in spec.pieces:
        if piece.piece in SINGLE:
            piece.type, piece.score = piece.NORMAL, 0
        piece.score = round(piece.score * SCORE_STEPS) / SCORE_STEPS


def sample_lines(
    folder: Path, params: TokenizerParams, mix: Sequence[MixEntry] | None = None
) -> Iterator[str]:
    """Yield the lines of a folder of documents; for a large corpus, a reproducible sample.

    The lines of a mix occur as often as in an epoch, with shares of bytes instead of tokens.
    sentencepiece holds its training text in memory, which the sample bounds.
    """
    limit = params.sample_megabytes * 1_000_000
    if mix is None:
        size = sum(file.stat().st_size for file in files_below(folder))
        return draw(lines_of(read_documents(folder)), min(1.0, limit / max(size, 1)), params.seed)
    sizes = Counter[str]()
    for document in read_documents(folder):
        sizes[str(document.corpus)] += len(document.text.encode())
    visits = visits_per_epoch(mix, sizes)
    share = min(Fraction(1), limit / sum(visits[label] * sizes[label] for label in sizes))
    return chain.from_iterable(
        draw(lines_of(group), visits[label] * share, f"{params.seed} {label}")
        for label, group in groupby(read_documents(folder), lambda each: str(each.corpus))
    )


def lines_of(documents: Iterable[Document]) -> Iterator[str]:
    """Yield lines with their ends; no piece spans a line end, so nothing is lost.

    U+2585 is removed, since sentencepiece skips every line that contains it.
    """
    for document in documents:
        for line in document.text.replace("\u2585", "").split("\n"):
            rest = line + "\n"
            while len(rest) > MAX_LINE:  # split before a blank if there is one
                blank = rest.rfind(" ", 1, MAX_LINE)
                stop = blank if blank > 0 else MAX_LINE
                yield rest[:stop]
                rest = rest[stop:]
            yield rest


def draw(lines: Iterable[str], times: float | Fraction, seed: int | str) -> Iterator[str]:
    """Yield each line ``times`` times; the fraction of it is the probability of one time more."""
    generator = random.Random(seed)  # noqa: S311 - not for secrets
    whole, rest = divmod(times, 1)
    for line in lines:
        yield from repeat(line, int(whole) + bool(rest and generator.random() < rest))


def round_trip_losses(tokenizer: Tokenizer, documents: Iterable[Document]) -> int:
    """Count the documents that encoding and decoding changes."""
    texts, originals = tee(document.text for document in documents)
    return sum(
        tokenizer.decode(ids) != original
        for ids, original in zip(tokenizer.encode_stream(texts), originals, strict=True)
    )


def compatibility_warnings(tokenizer: Tokenizer, documents: Iterable[Document]) -> Iterator[str]:
    """Yield known reasons why llama.cpp may give other ids than sentencepiece, or not run at all.

    ``export`` compares all ids in llama.cpp and decides, but only after training.
    """
    if isinstance(tokenizer, ByteLevelTokenizer) and tokenizer.normalizes:
        yield "it composes characters (NFC) before it splits a text, which llama.cpp doesn't do"
    if not isinstance(tokenizer, SentencePieceTokenizer):
        return
    normalizer, pieces = tokenizer.normalizer, tokenizer.spec.pieces
    user_defined = [tokenizer.piece(each) for each in tokenizer.user_defined]
    if tokenizer.kind in ("bpe", "char"):
        if not tokenizer.has_bytes:
            yield "it has no pieces for single bytes (byte_fallback), which llama.cpp needs"
        if normalizer.precompiled_charsmap or normalizer.remove_extra_whitespaces:
            yield "it normalizes text or removes blanks, which llama.cpp doesn't do for this kind"
        if normalizer.add_dummy_prefix and user_defined:
            yield "it has user-defined pieces and a leading blank; llama.cpp reads both differently"
        if any(blank in piece for piece in user_defined for blank in (" ", SPACE_MARK)):
            yield "it has user-defined pieces with blanks, which llama.cpp reads differently"
        texts = {piece.piece for piece in pieces if piece.type in TEXT}
        for control in (piece.piece for piece in pieces if piece.type == piece.CONTROL):
            if any({control[:cut], control[cut:]} <= texts for cut in range(1, len(control))):
                yield f"text can merge into its control piece {control}, special to llama.cpp"
    elif tokenizer.kind == "unigram":
        if tokenizer.has_bytes:
            yield "llama.cpp gives <unk> where a unigram model with byte_fallback gives bytes"
        if any(piece.score * SCORE_STEPS % 1 for piece in pieces):
            yield f"its scores are not multiples of 1/{SCORE_STEPS}: rounding can change the split"
    elif any("\n" in document.text for document in islice(documents, INSPECTED)):
        yield "its documents have several lines, and llama.cpp finds no word after a line end"


def _explain(message: str, params: TokenizerParams) -> str:
    problem = f"tokenizer.vocab_size is {params.vocab_size}"
    if too_high := re.search(r"Vocabulary size too high .*<= (\d+)", message):
        return _too_high(params.vocab_size, int(too_high[1]))
    if too_low := re.search(r"smaller than required_chars. \d+ vs (\d+)", message):
        return (
            f"{problem}, but the characters of the text alone need {too_low[1]}: raise it, or "
            "lower tokenizer.character_coverage (the rarest characters become "
            f"{'bytes' if params.kind in ('bpe', 'char') else 'unknown'})"
        )
    if any(sign in message for sign in NO_TEXT):
        return NO_TEXT_TO_LEARN
    return f"tokenizer: sentencepiece could not train on this text: {message}"


def _too_high(vocab_size: int, most: int) -> str:
    return (
        f"tokenizer.vocab_size is {vocab_size}, but the training text yields at most {most} "
        f"pieces: set it to {most} or less, or use more text"
    )
