"""BPE, unigram, character and word vocabularies: sentencepiece models, one file each.

The ids are always those of sentencepiece; for models that Atlas trains they are also those of
llama.cpp. Word vocabularies are Atlas's own: any white space separates words, and line ends are
kept.

Two encoders for many texts at once give the same ids:

- ``encode_units`` splits texts into units that encode to the same ids alone as in context, and has
  sentencepiece encode each distinct unit once. It works for every model.
- ``GigatokenEncoder`` runs gigatoken, which is several times faster. It takes BPE models with byte
  fallback, and models of single characters, which are BPE models without merges.
"""

import hashlib
import logging
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import cast

import numpy as np
from google.protobuf.message import DecodeError
from sentencepiece import SentencePieceProcessor
from sentencepiece.sentencepiece_model_pb2 import ModelProto, NormalizerSpec, TrainerSpec

from atlas.errors import AtlasError
from atlas.tokens.roles import Roles
from atlas.tokens.tokenizer import (
    HINT,
    SPACE_MARK,
    VOCABULARY_FILE,
    Encoder,
    Ids,
    Kind,
    Lengths,
    Tokenizer,
)

MODEL_FILE = "tokenizer.model"
SEPARATOR, SEPARATOR_BYTE = "\0", "<0x00>"
BPE, CHAR = TrainerSpec.BPE, TrainerSpec.CHAR
TEXT = ModelProto.SentencePiece.NORMAL, ModelProto.SentencePiece.USER_DEFINED
logger = logging.getLogger(__name__)


class SentencePieceTokenizer(Tokenizer):
    """A sentencepiece model."""

    def __init__(self, model: bytes, name: str = MODEL_FILE, roles: Roles | None = None) -> None:
        """Parse the content of a model file; ``name`` identifies it in errors.

        Without ``roles``, special pieces have those of models that Atlas trains: the end of a text
        is also its beginning.
        """
        # The model as its file describes it, and as sentencepiece runs it.
        self.spec, self.processor = _parse(model, name)
        spec = self.spec
        self.model = model
        self.kind = cast(Kind, TrainerSpec.ModelType.Name(spec.trainer_spec.model_type).lower())
        self.vocab_size: int = self.processor.vocab_size()
        if self.processor.eos_id() < 0:
            raise AtlasError(
                f"{name}: this model has no end-of-sentence piece (eos_id) to separate documents; "
                "train it with one, or let Atlas train a tokenizer (tokenizer.path=models/own)"
            )
        if self.kind == "word" and self.processor.piece_to_id("\n") == self.processor.unk_id():
            raise AtlasError(
                f"{name}: Atlas reads only word models that it trained itself; train one with "
                "tokenizer.kind=word and tokenizer.path=models/own"
            )
        numbers = (self.processor.eos_id(), self.processor.pad_id(), self.processor.unk_id())
        if max(numbers) >= self.vocab_size or self.processor.unk_id() < 0:
            raise AtlasError(f"{name}: not a sentencepiece model; {HINT}")
        own_roles = self._own_roles()
        self.roles = roles or own_roles
        self._has_own_roles = self.roles == own_roles
        identity = b"" if self._has_own_roles else self.roles.identity()
        self.sha256 = hashlib.sha256(model + identity).hexdigest()
        self._set_roles(self.roles, {piece.piece: each for each, piece in enumerate(spec.pieces)})
        self.special_ids = {
            piece.piece: number
            for number, piece in enumerate(spec.pieces)
            if piece.type == piece.CONTROL
        }
        if self.is_text(self.eos):
            raise AtlasError(
                f"{name}: its end of text {self.piece(self.eos)!r} is an ordinary piece, so "
                "documents could hold it; name a control piece as eos_token"
            )
        self.unk: int = self.processor.unk_id()
        self.has_bytes = any(piece.type == piece.BYTE for piece in spec.pieces)  # instead of unk
        self.normalizer: NormalizerSpec = spec.normalizer_spec  # changes a text before splitting
        pieces = enumerate(spec.pieces)  # user-defined ones are split off before all others
        self.user_defined = {each for each, piece in pieces if piece.type == piece.USER_DEFINED}
        self._normalizes = bool(
            self.normalizer.precompiled_charsmap
            or self.normalizer.remove_extra_whitespaces
            or spec.trainer_spec.treat_whitespace_as_suffix
        )
        self._plain = ModelProto()  # does not normalize
        self._plain.CopyFrom(spec)
        rules = self._plain.normalizer_spec
        rules.precompiled_charsmap = b""
        rules.add_dummy_prefix = rules.remove_extra_whitespaces = False
        self._units = unit_pattern(spec)
        plain = SentencePieceProcessor(model_proto=self._plain.SerializeToString())
        self._unit_encoder: Encoder = partial(encode_units, plain, self._units)

    def save(self, folder: Path) -> None:
        """Write the model, and its vocabulary as a table, into a new folder."""
        folder.mkdir(parents=True)
        (folder / MODEL_FILE).write_bytes(self.model)
        if not self._has_own_roles:
            self.roles.write(folder)
        with (folder / VOCABULARY_FILE).open("w", encoding="utf-8", newline="\n") as file:
            for identity in range(self.vocab_size):
                score = self.processor.get_score(identity)
                file.write(f"{identity}\t{self.escaped(identity)}\t{score:g}\n")

    def with_roles(self, roles: Roles) -> "SentencePieceTokenizer":
        """Return this tokenizer with other roles of its special tokens."""
        return SentencePieceTokenizer(self.model, roles=roles)

    def encode(self, text: str) -> list[int]:
        """Encode one text with sentencepiece, without special ids."""
        blocks = self.blocks([text], encoder=self._unit_encoder)
        return [identity for ids, _ in blocks for identity in ids.tolist()]

    def encode_chat(self, text: str, mark: str = "") -> list[int]:
        """Encode a conversation; the names of control pieces in it stand for these pieces."""
        return self.encode_parts(text, mark)

    def decode(self, ids: Sequence[int] | Ids) -> str:
        """Return the text of ids.

        Special ids are skipped. Broken UTF-8 and unknown ids become U+FFFD, unless a user-supplied
        model defines another text for ``unk``.
        """
        text: str = self.processor.decode([int(identity) for identity in ids])
        return text.replace("\n ", "\n") if self.kind == "word" else text

    def piece(self, identity: int) -> str:
        """Return a piece as sentencepiece writes it, with U+2581 for blanks."""
        return str(self.processor.id_to_piece(identity))

    def piece_bytes(self, identity: int) -> bytes | None:
        """Return the bytes of an id: none of a special one, and None of an unknown one."""
        piece = self.spec.pieces[identity]
        if piece.type == piece.BYTE:
            return bytes([int(piece.piece[1:-1], 16)])  # <0xE2>
        if piece.type == piece.UNKNOWN:
            return None
        return piece.piece.replace(SPACE_MARK, " ").encode() if self.is_text(identity) else b""

    def is_text(self, identity: int) -> bool:
        """Return True for a piece of text: not special, not a single byte, not unused."""
        return self.spec.pieces[identity].type in TEXT

    @cached_property
    def bulk_encoder(self) -> Encoder:
        """The fastest encoder for this model; built when first needed, as that takes a while."""
        if gigatoken_supports(self._plain):
            try:
                return GigatokenEncoder(self._plain)
            except ImportError as error:
                logger.warning("encoding with sentencepiece, which is slower: %s", error)
        return self._unit_encoder

    def _own_roles(self) -> Roles:
        eos = self.piece(self.processor.eos_id())
        pad = eos if self.processor.pad_id() < 0 else self.piece(self.processor.pad_id())
        unk = self.piece(self.processor.unk_id())
        return Roles(bos=eos, eos=eos, pad=pad, unk=unk, ends=(eos,), add_bos=False)

    def next_split(self, text: str, position: int) -> int:
        """Return the end of the unit at a position of a normalized text."""
        rest = self._units.match(text, position)
        return rest.end() if rest else len(text)

    def normalize(self, text: str) -> str:
        """Return the normalized text that pieces match, with blanks for U+2581."""
        if self.kind == "word":
            lines = map(single_blanks, text.split("\n"))
            text = "\n".join(line and f" {line}" for line in lines)
        elif self._normalizes:
            text = self.processor.normalize(text)
        elif text and self.normalizer.add_dummy_prefix:
            text = f" {text}"
        return text.replace(SPACE_MARK, " ") if self.normalizer.escape_whitespaces else text


def single_blanks(line: str) -> str:
    """Collapse runs of whitespace in a line to one blank, and strip both ends."""
    return " ".join(line.split())


def _parse(model: bytes, name: str) -> tuple[ModelProto, SentencePieceProcessor]:
    try:
        spec = ModelProto.FromString(model)
        pieces = Counter(piece.piece for piece in spec.pieces)
        "".join(pieces).encode()  # fails if one isn't text
        ((piece, count),) = pieces.most_common(1)
        if count > 1:  # neither sentencepiece nor llama.cpp can read it
            raise AtlasError(
                f"{name}: the piece {piece!r} occurs {count} times, but each piece must be unique; "
                "train the model again with that piece once"
            )
        return spec, SentencePieceProcessor(model_proto=model)
    except (DecodeError, RuntimeError, AttributeError, TypeError, ValueError):
        raise AtlasError(f"{name}: not a sentencepiece model; {HINT}") from None


WORDS = re.compile(r"\n| [^ \n]*|[^ \n]+")
BLANKS_AND_LINES = re.compile(r"\n| +[^ \n]*|[^ \n]+")
BLANKS = re.compile(r" +[^ ]*|[^ ]+")
LINES = re.compile(r"\n|[^\n]+")
WHOLE = re.compile(r"(?s:.+)")
BYTE_NAME = re.compile("<0x..>")


def unit_pattern(spec: ModelProto) -> re.Pattern[str]:
    r"""Return a pattern whose successive matches are the units of a text.

    Text can be split wherever no piece spans the position: no token spans it either, and BPE merges
    and the best path of a unigram model on its left don't depend on the text on its right. If no
    piece has a blank after another character, a unit may start at each run of blanks. If no piece
    other than ``\n`` contains a line end, each line end is a unit::

        text     the  lamp\nsees        units   the|  lamp|\n|sees

    Models without byte fallback join neighboring unknown characters into one ``<unk>``, so there
    one side of each border must be in the vocabulary. A word model has one unit per word.
    """
    if spec.trainer_spec.model_type == TrainerSpec.WORD:
        return WORDS
    if any(piece.type == piece.UNUSED for piece in spec.pieces):
        return WHOLE  # BPE takes an unused piece apart again, wherever it ends
    pieces = {piece.piece for piece in spec.pieces if piece.type in TEXT}
    if spec.normalizer_spec.escape_whitespaces:
        pieces = {piece.replace(SPACE_MARK, " ") for piece in pieces}
    has_bytes = spec.trainer_spec.byte_fallback
    blanks = (has_bytes or " " in pieces) and not any(" " in each.lstrip(" ") for each in pieces)
    lines = (has_bytes or "\n" in pieces) and not any("\n" in each for each in pieces - {"\n"})
    if blanks and lines:
        return BLANKS_AND_LINES
    return BLANKS if blanks else LINES if lines else WHOLE


def encode_units(
    processor: SentencePieceProcessor, pattern: re.Pattern[str], texts: Sequence[str]
) -> tuple[Ids, Lengths]:
    """Encode with sentencepiece, each distinct unit once; see ``Encoder``.

    Short units also keep the sums of unigram scores exact: sentencepiece adds them up in single
    precision over whatever it is given.
    """
    known: dict[str, Sequence[int]] = {}
    encoded = []
    for text in texts:
        units = pattern.findall(text)
        new = list(set(units) - known.keys())
        known.update(zip(new, processor.encode(new, num_threads=1), strict=True))
        ids = chain.from_iterable(map(known.__getitem__, units))
        encoded.append(np.fromiter(ids, np.int32))
    return np.concatenate(encoded), np.array(list(map(len, encoded)), np.int64)


def gigatoken_supports(spec: ModelProto) -> bool:
    """Return True if gigatoken gives sentencepiece's ids for every text.

    gigatoken has no other model types and no unused pieces, breaks ties between equal scores in its
    own way, finds user-defined pieces before blanks become U+2581, and reads ``<0x..>`` as a byte.
    """
    normal = [piece for piece in spec.pieces if piece.type == piece.NORMAL]
    user_defined = [piece.piece for piece in spec.pieces if piece.type == piece.USER_DEFINED]
    texts = [*(piece.piece for piece in normal), *user_defined]
    scores = [piece.score for piece in normal if len(piece.piece) > 1]
    is_bpe, is_char = (spec.trainer_spec.model_type == kind for kind in (BPE, CHAR))
    return (
        spec.trainer_spec.byte_fallback
        and spec.normalizer_spec.escape_whitespaces
        and (len(set(scores)) == len(scores) if is_bpe else is_char and not scores)
        and not any(piece.type == piece.UNUSED for piece in spec.pieces)
        and not any(blank in piece for piece in user_defined for blank in (" ", SPACE_MARK))
        and not any(map(BYTE_NAME.fullmatch, texts))
    )


class GigatokenEncoder:
    """Encode with gigatoken, all texts in one call.

    Texts are joined by NUL, and their ids are split at its id: no piece may contain NUL, so it is
    always a token of its own, a byte. Each call has its own cache, so memory stays bounded.
    """

    def __init__(self, spec: ModelProto) -> None:
        from gigatoken import BytesSource, Tokenizer

        self._source = BytesSource
        self._tokenizer = Tokenizer.from_json(_tokenizer_json(spec))
        ids = {piece.piece: identity for identity, piece in enumerate(spec.pieces)}
        self._separator = ids[SEPARATOR_BYTE]

    def __call__(self, texts: Sequence[str]) -> tuple[Ids, Lengths]:
        """Encode texts; see ``Encoder``."""
        data = SEPARATOR.join((*texts, "")).encode()
        # As the only row of a matrix, since ragged rows would need the awkward package imported.
        rows, _ = self._tokenizer.encode_batch_padded(self._source(data), 0, parallel=False)
        ids = rows[0].view(np.int32)
        separators = np.flatnonzero(ids == self._separator)
        counts = np.array([text.count(SEPARATOR) + 1 for text in texts], np.int64)
        ends = separators[np.cumsum(counts) - 1]
        return np.delete(ids, ends), np.diff(ends, prepend=-1) - 1


def merges(spec: ModelProto) -> Iterator[tuple[str, str]]:
    """Yield every pair of pieces that merges into a piece, the highest score first.

    sentencepiece merges the neighbors whose sum has the highest score; tokenizers and gigatoken
    merge the pair that is first in a list.
    """
    pieces = {piece.piece: piece.score for piece in spec.pieces if piece.type == piece.NORMAL}
    for whole in sorted(pieces, key=pieces.__getitem__, reverse=True):
        for cut in range(1, len(whole)):
            left = whole[:cut]
            if left in pieces and (right := whole[cut:]) in pieces:
                yield left, right


def _tokenizer_json(spec: ModelProto) -> str:
    """Return a tokenizer.json with only the pieces that occur in encoded texts.

    Special pieces are left out: gigatoken would find their characters in a text.
    """
    from tokenizers import AddedToken, Tokenizer, models, normalizers

    pieces = list(enumerate(spec.pieces))
    vocabulary = {each.piece: i for i, each in pieces if each.type in (*TEXT, each.BYTE)}
    tokenizer = Tokenizer(models.BPE(vocabulary, list(merges(spec)), byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", SPACE_MARK)
    user_defined = [each.piece for each in spec.pieces if each.type == each.USER_DEFINED]
    tokenizer.add_tokens([AddedToken(piece, normalized=False) for piece in user_defined])
    return str(tokenizer.to_str())
