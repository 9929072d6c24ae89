"""Text to ids and back, in the same way for every kind of vocabulary."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from atlas.errors import AtlasError
from atlas.tokens.roles import Roles

VOCABULARY_FILE = "vocabulary.tsv"  # for people: id, piece, score
END_OF_TEXT, PADDING = "<|endoftext|>", "<|pad|>"
BLOCK = 1 << 23  # characters encoded at once
MAX_UNIT = 1 << 26  # characters without a place to split; encoders need some 60 bytes for each
SPACE_MARK = "\u2581"  # how sentencepiece writes a blank
CONTROLS = {code: 0x2400 + code for code in range(0x20)} | {0x7F: 0x2421}  # ␀ and the like
VISIBLE = str.maketrans(CONTROLS | {SPACE_MARK: "·", " ": "·", "\n": "⏎", "\t": "⇥"})
HINT = (
    "name a sentencepiece model, a tokenizer.json or a GGUF file (tokenizer.path, --tokenizer), or "
    "train one into models/tokenizer with `dvc repro -f train_tokenizer`"
)

Kind = Literal["bpe", "unigram", "char", "word", "byte_bpe"]
Ids = npt.NDArray[np.int32]
Lengths = npt.NDArray[np.int64]
# Takes normalized texts; returns the ids of all in a row, (N,), and the number of ids of each text,
# (texts,).
Encoder = Callable[[Sequence[str]], tuple[Ids, Lengths]]


class Tokenizer(ABC):
    """A vocabulary, and the rules that split text into pieces."""

    kind: Kind
    vocab_size: int
    sha256: str  # of the model file, and of the roles of special tokens from elsewhere
    bos: int  # before the first token of a text
    eos: int  # ends a document; no text encodes to it
    pad: int  # fills short rows of a batch; eos if there is no padding token
    unk: int | None  # for what the vocabulary can't express, if there is such a token
    end_ids: frozenset[int]  # each ends a generated text; eos is among them
    add_bos: bool  # True if a text begins with bos, by the convention of its source
    roles: Roles
    special_names: Mapping[str, str]  # by role, as in tokenizer_config.json: bos_token ...
    special_ids: Mapping[str, int]  # of all special tokens, by name
    chat_template: str | None  # in Jinja, if the source has one

    @staticmethod
    def load(path: Path) -> "Tokenizer":
        """Load a tokenizer of any form.

        Args:
            path: a sentencepiece model, a tokenizer.json of byte-level BPE, a GGUF file, or a
                folder with one of the first two. Special tokens have the roles that the files of
                Hugging Face next to it give them.
        """
        from atlas.tokens.conversion import load_tokenizer

        return load_tokenizer(path)

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the tokenizer, and its vocabulary as a table, into a new folder."""

    @abstractmethod
    def with_roles(self, roles: Roles) -> "Tokenizer":
        """Return this tokenizer with other roles of its special tokens."""

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Encode one text. Names of special tokens in it are ordinary text."""

    @abstractmethod
    def encode_chat(self, text: str, mark: str = "") -> list[int]:
        """Encode a conversation; the names of special tokens in it stand for these tokens.

        Names that ``mark`` breaks are text, without it.
        """

    @abstractmethod
    def decode(self, ids: Sequence[int] | Ids) -> str:
        """Return the text of ids. Special ids are skipped; broken UTF-8 becomes U+FFFD."""

    @abstractmethod
    def piece(self, identity: int) -> str:
        """Return a piece as the vocabulary writes it."""

    @abstractmethod
    def piece_bytes(self, identity: int) -> bytes | None:
        """Return the bytes of an id: none of a special one, and None of an unknown one."""

    @abstractmethod
    def is_text(self, identity: int) -> bool:
        """Return True for a piece of text: not special, not a single byte, not unused."""

    @property
    @abstractmethod
    def bulk_encoder(self) -> Encoder:
        """The fastest encoder of many texts."""

    @abstractmethod
    def normalize(self, text: str) -> str:
        """Return the text that the encoders take."""

    @abstractmethod
    def next_split(self, text: str, position: int) -> int:
        """Return the next position where a normalized text can be split without other ids."""

    @property
    def window_start(self) -> int | None:
        """The first input of every window, if texts begin with a bos that is not eos."""
        return self.bos if self.add_bos and self.bos != self.eos else None

    @cached_property
    def special_pattern(self) -> re.Pattern[str]:
        """Matches the name of a special token, in a group."""
        names = sorted(self.special_ids, key=len, reverse=True)  # the longest wins
        return re.compile(f"({'|'.join(map(re.escape, names))})")

    def encode_parts(self, text: str, mark: str = "") -> list[int]:
        """Encode what stands between special tokens part by part, without ``mark``."""
        ids: list[int] = []
        for part in filter(None, self.special_pattern.split(text)):
            special = self.special_ids.get(part)
            ids += self.encode(part.replace(mark, "")) if special is None else [special]
        return ids

    def _set_roles(self, roles: Roles, ids: Mapping[str, int]) -> None:
        """Set the attributes of special tokens."""
        self.eos = ids[roles.end_of_text]
        self.bos = self.eos if roles.bos is None else ids[roles.bos]
        self.pad = self.eos if roles.pad is None else ids[roles.pad]
        self.end_ids = frozenset(ids[each] for each in roles.ends)
        self.add_bos, self.chat_template = roles.add_bos, roles.chat_template
        self.special_names = roles.special_names()

    def encode_stream(self, texts: Iterable[str]) -> Iterator[Ids]:
        """Encode any number of texts to one array each, (T,), in bounded memory."""
        beginning: list[Ids] = []  # of a text that continues in the next block
        for block, ends in self.blocks(texts):
            *complete, rest = np.split(block, ends)
            for ids in complete:
                yield np.concatenate([*beginning, ids])
                beginning = []
            beginning.append(rest)

    def blocks(
        self, texts: Iterable[str], *, with_eos: bool = False, encoder: Encoder | None = None
    ) -> Iterator[tuple[Ids, Lengths]]:
        """Encode any number of texts in bounded memory; ``with_eos`` adds ``eos`` to each.

        Yields blocks: the ids of some texts in a row, (N,), and where each text ends in them. The
        last text may continue in the next block.
        """
        encode = encoder or self.bulk_encoder
        parts: list[str] = []
        complete: list[bool] = []  # False for a part whose text continues in the next block

        def block() -> tuple[Ids, Lengths]:
            ids, lengths = encode(parts)
            ends = np.cumsum(lengths)[complete]
            if with_eos:
                ids = np.insert(ids, ends, self.eos)
                ends += np.arange(1, len(ends) + 1)
            return ids, ends

        size = 0
        for text in map(self.normalize, map(_valid, texts)):
            for part, is_last in self._parts(text):
                if parts and size + len(part) > BLOCK:
                    yield block()
                    parts, complete, size = [], [], 0
                parts.append(part)
                complete.append(is_last)
                size += len(part)
        if parts:
            yield block()

    def escaped(self, identity: int) -> str:
        """Return a piece in one line, with Python escapes for unprintable characters."""
        return "".join(
            letter if letter.isprintable() and letter != "\\" else ascii(letter)[1:-1]
            for letter in self.piece(identity)
        )

    def _parts(self, text: str) -> Iterator[tuple[str, bool]]:
        """Split a long text into parts that can be encoded separately; mark the last one."""
        start = 0
        while len(text) - start > BLOCK:
            stop = start + BLOCK
            end = self.next_split(text, stop)
            if end - stop > MAX_UNIT:
                raise AtlasError(
                    f"a text has {(end - stop) >> 20} MB without a place to split it, starting at "
                    f"{text[stop : stop + 20]!r}: too long to encode; break it or remove it"
                )
            yield text[start:end], end == len(text)
            start = end
        if start < len(text) or not text:
            yield text[start:], True


def visible(piece: str) -> str:
    """Return a piece with visible signs for blanks, line ends, tabs and control characters."""
    return piece.translate(VISIBLE)


def _valid(text: str) -> str:
    """Replace half a surrogate pair, which UTF-8 can't hold, by U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
