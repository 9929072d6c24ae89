"""Text to ids and back: one class over BPE, unigram, character and word vocabularies.

Each is a sentencepiece model in a file of its own. The ids are those that sentencepiece gives,
found faster (``words``), and for what Atlas trains also those that llama.cpp gives. Vocabularies of
words are Atlas's own: white space of any kind divides words, and line ends count.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, cast

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError
from sentencepiece import SentencePieceProcessor
from sentencepiece.sentencepiece_model_pb2 import ModelProto, NormalizerSpec, TrainerSpec

from atlas.errors import AtlasError
from atlas.tokens.borders import Borders, between_pieces, nowhere, whole_words
from atlas.tokens.words import Block, Ids, WordEncoder

MODEL_FILE = "tokenizer.model"
VOCABULARY_FILE = "vocabulary.tsv"  # for people: id, piece, score
END_OF_TEXT, PADDING = "<|endoftext|>", "<|pad|>"
SPACE_MARK = "\u2581"  # as sentencepiece writes a blank
WAYS_OUT = (
    "name a sentencepiece model (tokenizer.path, --tokenizer); "
    "`dvc repro -f train_tokenizer` makes models/tokenizer"
)
MARK = SPACE_MARK.encode()

Kind = Literal["bpe", "unigram", "char", "word"]


class Tokenizer:
    """A vocabulary, and how text is cut into its pieces.

    Attributes:
        kind: bpe, unigram, char or word.
        vocab_size: number of pieces; ids are below it.
        bos: id before the first token of a text. It is ``eos``, as documents are joined by it.
        eos: id that ends a text. No text encodes to it, not even its own characters.
        pad: id that fills up what is shorter than the rest of a batch; ``eos`` if the model
            has no other.
        unk: id of what the vocabulary cannot express.
        normalizer: how sentencepiece changes a text before it cuts it.
        has_bytes: whether what has no piece becomes its bytes, instead of unknown.
        user_defined: ids of the pieces that are cut out of a text before all others.
        sha256: of the model file; token shards carry it.
        model: the content of the model file.
        processor: sentencepiece's own reading of it.
    """

    def __init__(self, model: bytes, name: str = MODEL_FILE) -> None:
        """Reads a sentencepiece model.

        Args:
            model: the content of a model file.
            name: of that file, for errors.

        Raises:
            AtlasError: it is no such model, or has no piece that ends a text.
        """
        spec, self.processor = _parse(model, name)
        self.model = model
        self.sha256 = hashlib.sha256(model).hexdigest()
        self.kind = cast(Kind, TrainerSpec.ModelType.Name(spec.trainer_spec.model_type).lower())
        self.vocab_size: int = self.processor.vocab_size()
        self.eos: int = self.processor.eos_id()
        if self.eos < 0:
            raise AtlasError(
                f"{name}: it has no piece that ends a text (eos_id), and documents are joined by "
                "it; train it with one, or let Atlas train (tokenizer.path=models/own)"
            )
        if self.kind == "word" and self.processor.piece_to_id("\n") == self.processor.unk_id():
            raise AtlasError(
                f"{name}: a model of words that Atlas did not train; it trains one with "
                "tokenizer.kind=word (and tokenizer.path=models/own)"
            )
        self.bos = self.eos
        pad: int = self.processor.pad_id()
        self.pad = self.eos if pad < 0 else pad
        self.unk: int = self.processor.unk_id()
        self.normalizer: NormalizerSpec = spec.normalizer_spec
        self.has_bytes = any(piece.type == piece.BYTE for piece in spec.pieces)
        pieces = enumerate(spec.pieces)
        self.user_defined = {each for each, piece in pieces if piece.type == piece.USER_DEFINED}
        self._normalizes = bool(
            self.normalizer.precompiled_charsmap
            or self.normalizer.remove_extra_whitespaces
            or spec.trainer_spec.treat_whitespace_as_suffix
        )
        self._words = WordEncoder(_encode_of(spec), self._borders(spec), self.eos)

    @classmethod
    def load(cls, path: Path) -> "Tokenizer":
        """Loads a sentencepiece model file, or the one of a folder that train_tokenizer wrote.

        Raises:
            AtlasError: there is none, or it is none.
        """
        file = path / MODEL_FILE if path.is_dir() else path
        try:
            return cls(file.read_bytes(), str(file))
        except FileNotFoundError:
            raise AtlasError(f"{file}: no such tokenizer; {WAYS_OUT}") from None

    def save(self, folder: Path) -> None:
        """Writes the model, and its vocabulary for people to read, into a new folder."""
        folder.mkdir(parents=True)
        (folder / MODEL_FILE).write_bytes(self.model)
        with (folder / VOCABULARY_FILE).open("w", encoding="utf-8", newline="\n") as file:
            for identity in range(self.vocab_size):
                score = self.processor.get_score(identity)
                file.write(f"{identity}\t{self.escaped(identity)}\t{score:g}\n")

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without any special one."""
        ids: list[int] = self.encode_batch([text])[0].tolist()
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        """The ids of each of some texts, (T,)."""
        blocks = list(self.blocks(texts))
        sizes = np.cumsum([0, *(len(block.ids) for block in blocks)])
        ends = [size + block.ends for size, block in zip(sizes, blocks, strict=False)]
        if not ends:
            return []
        ids = np.concatenate([block.ids for block in blocks])
        return np.split(ids, np.concatenate(ends)[:-1])

    def blocks(self, texts: Iterable[str], *, with_eos: bool = False) -> Iterator[Block]:
        """The ids of texts without end, in bounded memory; ``with_eos`` ends each with one."""
        return self._words.blocks(map(self._prepare, texts), with_end=with_eos)

    def pad_batch(
        self, batch: Sequence[Sequence[int] | Ids]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """Rows of ids, filled up on the right, and where they are not: (B, T) each."""
        lengths = np.array([len(row) for row in batch], np.int64)
        mask = np.arange(lengths.max(initial=0)) < lengths[:, None]
        ids = np.full(mask.shape, self.pad, np.int64)
        if batch:
            ids[mask] = np.concatenate([np.asarray(row, np.int64) for row in batch])
        return ids, mask

    def decode(self, ids: Sequence[int] | Ids) -> str:
        """The text of ids.

        Special ids give nothing, broken UTF-8 gives U+FFFD, and so do unknown ids, unless a given
        model says otherwise.
        """
        text: str = self.processor.decode([int(identity) for identity in ids])
        return text.replace("\n ", "\n") if self.kind == "word" else text

    def decode_batch(self, batch: Iterable[Sequence[int] | Ids]) -> list[str]:
        """The text of each row of ids."""
        return [self.decode(ids) for ids in batch]

    def piece(self, identity: int) -> str:
        """The piece of an id as sentencepiece writes it, blanks as U+2581."""
        text: str = self.processor.id_to_piece(identity)
        return text

    def escaped(self, identity: int) -> str:
        """The piece of an id in one line, what does not show as a Python escape."""
        return "".join(
            letter if letter.isprintable() and letter != "\\" else ascii(letter)[1:-1]
            for letter in self.piece(identity)
        )

    def is_text(self, identity: int) -> bool:
        """Whether a piece was made for text: not special, not a single byte, not out of use."""
        processor = self.processor
        return not (
            processor.is_control(identity)
            or processor.is_unknown(identity)
            or processor.is_byte(identity)
            or processor.is_unused(identity)
        )

    def _borders(self, spec: ModelProto) -> Borders:
        """Where a text may be cut into words."""
        if self.kind == "word":
            return whole_words()
        if any(piece.type == piece.UNUSED for piece in spec.pieces):
            return nowhere()  # BPE takes such a piece apart as it was last merged, anywhere
        pieces = [
            self._unmarked(piece.piece.encode())
            for piece in spec.pieces
            if piece.type in (piece.NORMAL, piece.USER_DEFINED)
        ]
        return between_pieces(pieces, has_bytes=self.has_bytes)

    def _prepare(self, text: str) -> bytes:
        """The text as the words are cut from it: normalised, in UTF-8, a blank put in front."""
        if self.kind == "word":
            lines = map(single_blanks, text.split("\n"))
            data = _utf8("\n".join(line and f" {line}" for line in lines))
        elif self._normalizes:
            data = _utf8(self.processor.normalize(_utf8(text).decode()))
        else:
            data = _utf8(text)
            if data and self.normalizer.add_dummy_prefix:
                data = b" " + data
        return self._unmarked(data)

    def _unmarked(self, data: bytes) -> bytes:
        """Text or a piece with blanks for their marks, which sentencepiece takes for the same."""
        return data.replace(MARK, b" ") if self.normalizer.escape_whitespaces else data


def _parse(model: bytes, name: str) -> tuple[ModelProto, SentencePieceProcessor]:
    wrong = AtlasError(f"{name}: not a sentencepiece model; {WAYS_OUT}")
    try:
        spec = ModelProto.FromString(model)
        pieces = [piece.piece.encode() for piece in spec.pieces]
        _refuse_duplicates(spec, name)
        processor = SentencePieceProcessor(model_proto=model)
    except (DecodeError, RuntimeError, AttributeError, TypeError, ValueError):
        raise wrong from None  # damaged in one of many ways
    if not pieces:
        raise wrong
    return spec, processor


def _refuse_duplicates(spec: ModelProto, name: str) -> None:
    """Stops where two ids are one text, which neither sentencepiece nor llama.cpp can read."""
    (piece, count), *_ = Counter(piece.piece for piece in spec.pieces).most_common(1) or [("", 0)]
    if count > 1:
        raise AtlasError(
            f"{name}: the piece {piece!r} is in it {count} times, and a token is known by its "
            "text: leave it in once, and train anew"
        )


def _encode_of(spec: ModelProto) -> Callable[[list[bytes]], Sequence[Sequence[int]]]:
    """What encodes single words, which are normalised already."""
    plain = ModelProto()
    plain.CopyFrom(spec)
    plain.normalizer_spec.precompiled_charsmap = b""
    plain.normalizer_spec.add_dummy_prefix = False
    plain.normalizer_spec.remove_extra_whitespaces = False
    processor = SentencePieceProcessor(model_proto=plain.SerializeToString())

    def encode(words: list[bytes]) -> Sequence[Sequence[int]]:
        ids: Sequence[Sequence[int]] = processor.encode(words, num_threads=1)
        return ids

    return encode


def single_blanks(line: str) -> str:
    """A line with one blank where it has white space."""
    return " ".join(line.split())


def _utf8(text: str) -> bytes:
    """A text in UTF-8, with U+FFFD for halves of surrogate pairs, which have none."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
