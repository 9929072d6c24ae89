"""Encode many texts at once, with the same ids as sentencepiece.

Two encoders, one result:

- ``encode_units`` splits texts into units that encode to the same ids alone as in context, and has
  sentencepiece encode each distinct unit once. It works for every model.
- ``GigatokenEncoder`` runs gigatoken, which is several times faster. It takes BPE models with byte
  fallback, and models of single characters, which are BPE models without merges.

Both expect text that is normalized already, with plain blanks for U+2581.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import chain

import numpy as np
import numpy.typing as npt
from sentencepiece import SentencePieceProcessor
from sentencepiece.sentencepiece_model_pb2 import ModelProto, TrainerSpec

Ids = npt.NDArray[np.int32]
Lengths = npt.NDArray[np.int64]
# Takes texts; returns the ids of all in a row, (N,), and the number of ids of each, (texts,).
Encoder = Callable[[Sequence[str]], tuple[Ids, Lengths]]

SPACE_MARK = "\u2581"  # how sentencepiece writes a blank
SEPARATOR, SEPARATOR_BYTE = "\0", "<0x00>"
BYTE_NAME = re.compile("<0x..>")
TEXT = ModelProto.SentencePiece.NORMAL, ModelProto.SentencePiece.USER_DEFINED

WORDS = re.compile(r"\n| [^ \n]*|[^ \n]+")
BLANKS_AND_LINES = re.compile(r"\n| +[^ \n]*|[^ \n]+")
BLANKS = re.compile(r" +[^ ]*|[^ ]+")
LINES = re.compile(r"\n|[^\n]+")
WHOLE = re.compile(r"(?s:.+)")


def unit_pattern(spec: ModelProto) -> re.Pattern[str]:
    r"""Return a pattern whose successive matches are the units of a text.

    Text can be split wherever no piece spans the position: no token spans it either, and BPE merges
    and the best path of a unigram model on its left don't depend on the text on its right. If no
    piece has a blank after another character, a unit may start at each run of blanks. If no piece
    but ``\n`` itself holds a line end, a line end is a unit::

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

    The reasons against it: gigatoken has no other model types and no unused pieces; it breaks ties
    between merges of equal score in its own way; it looks for user-defined pieces before blanks
    become U+2581; it takes any ``<0x..>`` for a byte.
    """
    normal = [piece for piece in spec.pieces if piece.type == piece.NORMAL]
    user_defined = [piece.piece for piece in spec.pieces if piece.type == piece.USER_DEFINED]
    texts = [*(piece.piece for piece in normal), *user_defined]
    scores = [piece.score for piece in normal if len(piece.piece) > 1]
    return (
        spec.trainer_spec.byte_fallback
        and spec.normalizer_spec.escape_whitespaces
        and {
            TrainerSpec.BPE: len(set(scores)) == len(scores),
            TrainerSpec.CHAR: not scores,
        }.get(spec.trainer_spec.model_type, False)
        and not any(piece.type == piece.UNUSED for piece in spec.pieces)
        and not any(blank in piece for piece in user_defined for blank in (" ", SPACE_MARK))
        and not any(map(BYTE_NAME.fullmatch, texts))
    )


class GigatokenEncoder:
    """Encode with gigatoken, all texts in one call.

    Texts are joined by NUL and their ids are split where its id is: no piece may hold NUL, so it is
    always a token of its own, a byte. Each call has a cache of its own, so memory stays bounded.
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
            if whole[:cut] in pieces and whole[cut:] in pieces:
                yield whole[:cut], whole[cut:]


def _tokenizer_json(spec: ModelProto) -> str:
    """Return a tokenizer.json with only the pieces that occur in encoded texts.

    Special pieces are left out: gigatoken would find their characters in a text.
    """
    from tokenizers import AddedToken, Tokenizer, models, normalizers

    pieces = list(enumerate(spec.pieces))
    vocabulary = {each.piece: i for i, each in pieces if each.type in (*TEXT, each.BYTE)}
    tokenizer = Tokenizer(models.BPE(vocabulary, list(merges(spec)), byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", SPACE_MARK)
    tokenizer.add_tokens(
        [
            AddedToken(each.piece, normalized=False)
            for each in spec.pieces
            if each.type == each.USER_DEFINED
        ]
    )
    text: str = tokenizer.to_str()
    return text
