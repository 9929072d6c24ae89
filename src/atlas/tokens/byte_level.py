"""Byte-level BPE: tokenizers of the kind that GPT-2 began, read from a tokenizer.json.

A text is split (see pre_tokenizers.py), each part is written as bytes, and bytes are merged in the
order of a list. Bytes are spelled as letters in the file: a blank is U+0120. The ids are always
those of the tokenizers library. Two encoders give them for many texts:

- gigatoken, some twenty times as fast, for the splits that it knows.
- tokenizers, one unit at a time: a text can be cut where no part of any split spans the position,
  and each distinct unit is encoded once.
"""

import hashlib
import json
import logging
import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import IntEnum
from functools import cached_property, lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tokenizers

from atlas.errors import AtlasError, one_line
from atlas.tokens.pre_tokenizers import (
    ANY_CASE,
    CONTRACTIONS,
    DIGIT,
    LONG_S,
    PreTokenizer,
    recognize,
)
from atlas.tokens.roles import Roles
from atlas.tokens.tokenizer import VOCABULARY_FILE, Encoder, Ids, Lengths, Tokenizer

TOKENIZER_FILE = "tokenizer.json"
# A text can be cut between a letter and white space or a full stop, and before any other blank that
# follows no white space. No part of a split spans these positions, and none looks beyond them.
CUT = re.compile(r"(?<=[^\W_])(?=[\s\u3001\u3002\uff0c])|(?<=\S)(?= )")
SHORT = 1 << 16  # characters that are encoded without building a bulk encoder
MAX_KNOWN = 1 << 17  # parts between digits whose ids are kept
UNASSIGNED, NUMBER = 1, 2  # categories of characters
logger = logging.getLogger(__name__)


class TokenType(IntEnum):
    """Types of tokens, numbered as in GGUF files and sentencepiece models."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


class ByteLevelTokenizer(Tokenizer):
    """A tokenizer.json of byte-level BPE, and the roles of its special tokens."""

    kind = "byte_bpe"
    unk = None

    def __init__(self, content: bytes, roles: Roles | Path, name: str = TOKENIZER_FILE) -> None:
        """Parse the content of a file.

        Args:
            content: of the file.
            roles: of the special tokens, or a folder with files that give them.
            name: identifies the file in errors.
        """
        self.content, self._name = content, name
        self._spec = spec = _Spec.parse(content, name)
        self._fast = _load(content, name)
        self.roles = _roles(roles, self._fast, spec) if isinstance(roles, Path) else roles
        self.pre: PreTokenizer = spec.pre
        self.sha256 = hashlib.sha256(content + self.roles.identity()).hexdigest()
        self.vocab_size = len(spec.tokens)
        self._set_roles(self.roles, spec.ids)
        self.special_ids = {name: spec.ids[name] for name in spec.special}
        for token in (*spec.special, *spec.user_defined):
            if self._fast.token_to_id(token) != spec.ids[token]:
                raise AtlasError(
                    f"{name}: its token {token!r} has id {spec.ids[token]}, but tokenizers reads "
                    f"it as {self._fast.token_to_id(token)}; save it again with a current version"
                )
        self._fast.encode_special_tokens = True  # their names are ordinary text
        for special in sorted({*spec.special, self.roles.eos, self.roles.end_of_text}):
            if spec.ids[special] in self._fast.encode(special, add_special_tokens=False).ids:
                raise AtlasError(
                    f"{name}: the text {special!r} encodes to the special token of this name, so "
                    "documents could hold it; use a tokenizer whose special tokens are not text"
                )
        self._pieces = [spec.piece_bytes(each) for each in self.tokens()]

    @classmethod
    def read(cls, path: Path) -> "ByteLevelTokenizer":
        """Read a tokenizer.json, and the roles of its special tokens from the files next to it."""
        return cls(path.read_bytes(), path.parent, str(path))

    def save(self, folder: Path) -> None:
        """Write the file as it was read, the roles, and the vocabulary as a table."""
        folder.mkdir(parents=True)
        (folder / TOKENIZER_FILE).write_bytes(self.content)
        self.roles.write(folder)
        with (folder / VOCABULARY_FILE).open("w", encoding="utf-8", newline="\n") as file:
            for identity in range(self.vocab_size):
                file.write(f"{identity}\t{self.escaped(identity)}\n")

    def with_roles(self, roles: Roles) -> "ByteLevelTokenizer":
        """Return this tokenizer with other roles of its special tokens."""
        return ByteLevelTokenizer(self.content, roles, self._name)

    def encode(self, text: str) -> list[int]:
        """Encode one text. Names of special tokens in it are ordinary text."""
        encoder = self._encode_whole if len(text) < SHORT else self.bulk_encoder
        return [each for ids, _ in self.blocks([text], encoder=encoder) for each in ids.tolist()]

    def encode_chat(self, text: str, mark: str = "") -> list[int]:
        """Encode a conversation; the names of special tokens in it stand for these tokens."""
        if mark and mark in text:
            return self.encode_parts(text, mark)
        valid = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        ids: list[int] = self._with_special.encode(valid, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Sequence[int] | Ids) -> str:
        """Return the text of ids. Special ids are skipped; broken UTF-8 becomes U+FFFD."""
        return b"".join(self._pieces[int(each)] for each in ids).decode("utf-8", "replace")

    def piece(self, identity: int) -> str:
        """Return the text of a piece, the name of a special one, or bytes such as <0xE2>."""
        data = self._pieces[identity]
        if not data:
            return self.tokens()[identity]
        try:
            return data.decode()
        except UnicodeDecodeError:
            return "".join(f"<0x{byte:02X}>" for byte in data)

    def piece_bytes(self, identity: int) -> bytes:
        """Return the bytes of an id: none of a special one."""
        return self._pieces[identity]

    def is_text(self, identity: int) -> bool:
        """Return True for a piece of text: not special, not a part of a character, not unused."""
        try:
            text = self._pieces[identity].decode()
        except UnicodeDecodeError:
            return False
        return len(text) > 1 or (bool(text) and (text.isprintable() or text.isspace()))

    def tokens(self) -> list[str]:
        """Every token in the order of ids, spelled as in the file; unused ids have a name, too."""
        return self._spec.tokens

    def token_types(self) -> list[TokenType]:
        """The type of every token, in the order of ids."""
        return [self._spec.type_of(each) for each in self.tokens()]

    def merges(self) -> list[str]:
        """The pairs of pieces that are merged, in order: two pieces with a blank between."""
        return self._spec.merges

    @property
    def normalizes(self) -> bool:
        """True if characters are composed (NFC) before the split, which llama.cpp doesn't do."""
        return self._spec.normalizes

    @cached_property
    def bulk_encoder(self) -> Encoder:
        """The fastest encoder for this tokenizer; built when first needed."""
        if self.pre.has_fast_encoder and not self._spec.user_defined:
            try:
                return GigatokenEncoder(self._spec, self._encode_units)
            except ImportError as error:
                logger.warning("encoding with tokenizers, which is slower: %s", error)
        return self._encode_units

    def normalize(self, text: str) -> str:
        """Return the text; the encoders normalize."""
        return text

    def next_split(self, text: str, position: int) -> int:
        """Return the next position where a text can be cut without other ids."""
        if not self._spec.can_be_cut:
            return len(text)
        found = CUT.search(text, position)
        return found.start() if found else len(text)

    @cached_property
    def _with_special(self) -> tokenizers.Tokenizer:
        return _load(self.content, self._name)

    def _encode_whole(self, texts: Sequence[str]) -> tuple[Ids, Lengths]:
        """Encode with tokenizers; see ``Encoder``."""
        return _joined(self._batch(texts))

    def _encode_units(self, texts: Sequence[str]) -> tuple[Ids, Lengths]:
        """Encode with tokenizers, each distinct unit once; see ``Encoder``."""
        if not self._spec.can_be_cut:
            return self._encode_whole(texts)
        known: dict[str, list[int]] = {}
        encoded = []
        for text in texts:
            units = CUT.split(text)
            new = list(set(units) - known.keys())
            known.update(zip(new, self._batch(new), strict=True))
            encoded.append(list(chain.from_iterable(map(known.__getitem__, units))))
        return _joined(encoded)

    def _batch(self, texts: Sequence[str]) -> Iterator[list[int]]:
        for each in self._fast.encode_batch_fast(list(texts), add_special_tokens=False):
            yield each.ids


class GigatokenEncoder:
    """Encode with gigatoken.

    It knows a later version of Unicode than tokenizers. Texts with characters that Python doesn't
    know go to tokenizers, and so do those with a letter that only one spelling of a pattern
    matches, or with bytes that have no piece.
    """

    def __init__(self, spec: "_Spec", fallback: Encoder) -> None:
        from gigatoken import Tokenizer

        self._fallback = fallback
        self._single_digits = spec.pre.patterns[0] == DIGIT
        self._normalizes = spec.normalizes
        self._strange = categories() == UNASSIGNED  # characters that gigatoken may read otherwise
        self._strange[ord(LONG_S)] |= not spec.any_case
        letters = byte_letters()
        missing = b"".join(letters[each] for each in spec.missing)
        self._missing = re.compile(b"[" + re.escape(missing) + b"]") if missing else None
        self._tokenizer = Tokenizer.from_json(spec.without_special_tokens())

    def __call__(self, texts: Sequence[str]) -> tuple[Ids, Lengths]:
        """Encode texts; see ``Encoder``."""
        encoded = [None if self._has_strange(text) else self._encode(text) for text in texts]
        strange = [text for text, ids in zip(texts, encoded, strict=True) if ids is None]
        if strange:
            ids, lengths = self._fallback(strange)
            rest = iter(np.split(ids, np.cumsum(lengths)))
            encoded = [next(rest) if ids is None else ids for ids in encoded]
        rows = [ids for ids in encoded if ids is not None]
        return np.concatenate(rows), np.array(list(map(len, rows)), np.int64)

    def _has_strange(self, text: str) -> bool:
        if self._missing is not None and self._missing.search(text.encode()):
            return True
        return bool(self._strange[_codes(text)].any())

    def _encode(self, text: str) -> Ids:
        if self._normalizes and not text.isascii():
            text = unicodedata.normalize("NFC", text)
        if self._single_digits:
            codes = _codes(text)
            digits = set(codes[categories()[codes] == NUMBER].tolist())
            if digits:
                pattern = "".join(map(re.escape, map(chr, sorted(digits))))
                return self._encode_parts(re.split(f"([{pattern}])", text))
        return self._tokenizer.encode(text).view(np.int32)

    def _encode_parts(self, parts: list[str]) -> Ids:
        """Encode parts of a text alone, and join their ids."""
        known: dict[str, Ids] = {}
        encoded = []
        for part in parts:
            ids = known.get(part)
            if ids is None:
                ids = self._tokenizer.encode(part).view(np.int32)
                if len(known) < MAX_KNOWN:
                    known[part] = ids
            encoded.append(ids)
        return np.concatenate(encoded)


class _Spec:
    """The content of a tokenizer.json, checked."""

    def __init__(self, spec: Mapping[str, Any], name: str) -> None:
        self._json, self._name = spec, name
        model = spec.get("model")
        if not isinstance(model, dict) or not isinstance(model.get("vocab"), dict):
            raise self._refusal("it has no vocabulary of byte-pair encoding")
        if model.get("type", "BPE") != "BPE" or "merges" not in model:
            raise self._refusal(f"its model is {model.get('type')}, not BPE")
        if model.get("byte_fallback"):
            raise self._refusal("it is BPE of characters with bytes as a fallback")
        for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
            if model.get(key):
                raise self._refusal(f"its model has {key}={model[key]!r}")
        letters = byte_letters()
        # Without a piece, a byte is left out: no text may have it, as in SmolLM2.
        self.missing = [letter for letter in letters if letter not in model["vocab"]]
        self.pre = recognize(
            spec.get("pre_tokenizer"),
            self.missing,
            ignore_merges=bool(model.get("ignore_merges")),
            file=name,
        )
        self.normalizes = self._normalizes(spec.get("normalizer"))
        self.any_case = ANY_CASE in json.dumps(spec["pre_tokenizer"])
        added = spec.get("added_tokens") or []
        self.special = {each["content"] for each in added if each.get("special")}
        self.user_defined = {each["content"] for each in added if not each.get("special")}
        for each in added:
            rules = [key for key in ("lstrip", "rstrip", "single_word") if each.get(key)]
            if rules and not each.get("special"):
                raise self._refusal(f"its token {each['content']!r} has the rule {rules[0]}")
        self.ids: dict[str, int] = model["vocab"] | {each["content"]: each["id"] for each in added}
        self.merges = [_merge(each) for each in model["merges"]]
        self.tokens = self._in_order()
        if self.missing and model.get("unk_token") in self.ids:
            raise self._refusal(
                f"it reads byte 0x{letters[self.missing[0]][0]:02X}, which has no piece, as the "
                f"token {model['unk_token']!r}; llama.cpp leaves such bytes out"
            )
        self._bytes = {ord(letter): byte[0] for letter, byte in letters.items()}
        self.can_be_cut = not any(map(CUT.search, self.user_defined))

    @classmethod
    def parse(cls, content: bytes, name: str) -> "_Spec":
        """Parse a file."""
        try:
            return cls(json.loads(content), name)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise AtlasError(f"{name}: not a tokenizer.json ({one_line(error)[:200]})") from None

    def type_of(self, token: str) -> TokenType:
        """The type of a token."""
        if token in self.special:
            return TokenType.CONTROL
        if token in self.user_defined:
            return TokenType.USER_DEFINED
        return TokenType.NORMAL if token in self.ids else TokenType.UNUSED

    def piece_bytes(self, token: str) -> bytes:
        """The bytes of text that a token stands for."""
        match self.type_of(token):
            case TokenType.NORMAL:
                try:
                    return token.translate(self._bytes).encode("latin-1")
                except UnicodeEncodeError:  # no text encodes to a piece with other letters
                    return b""
            case TokenType.USER_DEFINED:
                return token.encode()
        return b""

    def without_special_tokens(self) -> str:
        """The file as gigatoken can read it.

        It would find names of special tokens in a text. It needs a piece for every byte: those that
        have none get ids after all others. It knows only one spelling of contractions, and digits
        are split off before.
        """
        model = dict(self._json["model"])
        pieces = model["vocab"].items()
        model["vocab"] = {each: number for each, number in pieces if each not in self.special} | {
            letter: len(self.tokens) + number for number, letter in enumerate(self.missing)
        }
        rest = self.pre.patterns[1:] if self.pre.patterns[0] == DIGIT else self.pre.patterns
        steps = PreTokenizer("", rest).steps()
        text = json.dumps(
            {
                "added_tokens": [],
                "normalizer": None,
                "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps}
                if len(steps) > 1
                else steps[0],
                "decoder": {"type": "ByteLevel"},
                "model": {"type": "BPE"} | model,
            }
        )
        return text.replace(CONTRACTIONS, ANY_CASE)

    def _in_order(self) -> list[str]:
        """The tokens in the order of ids."""
        names = {identity: token for token, identity in self.ids.items()}
        if len(names) < len(self.ids):
            raise self._refusal("two of its tokens have the same id")
        if max(names) >= 2 * len(names):
            raise self._refusal("its ids have too many gaps")
        tokens = [names.get(each, f"[PAD{each}]") for each in range(max(names) + 1)]
        if len(set(tokens)) < len(tokens):
            raise self._refusal("a token has the name of a gap in its ids")
        return tokens

    def _normalizes(self, step: object) -> bool:
        match step:
            case None | {"type": "Sequence", "normalizers": []}:
                return False
            case {"type": "NFC"} | {"type": "Sequence", "normalizers": [{"type": "NFC"}]}:
                return True
        raise self._refusal(f"its normalizer {json.dumps(step)[:120]} is neither NFC nor none")

    def _refusal(self, reason: str) -> AtlasError:
        return AtlasError(
            f"{self._name}: {reason}; Atlas reads byte-level BPE as of GPT-2, Llama 3 or Qwen, and "
            "sentencepiece models"
        )


@lru_cache(maxsize=1)
def categories() -> npt.NDArray[np.uint8]:
    """The category of each code point, if unassigned or a number, else 0, (0x110000,)."""
    names = "".join(map(unicodedata.category, map(chr, range(sys.maxunicode + 1))))
    first, second = np.frombuffer(names.encode(), np.uint8).reshape(-1, 2).T
    unassigned = (first == ord("C")) & (second == ord("n"))
    return np.where(unassigned, UNASSIGNED, np.where(first == ord("N"), NUMBER, 0)).astype(np.uint8)


def _codes(text: str) -> npt.NDArray[np.uint32]:
    """The code points of a text, (characters,)."""
    return np.frombuffer(text.encode("utf-32-le"), "<u4")


def byte_letters() -> dict[str, bytes]:
    """The letters that spell bytes in the vocabulary of GPT-2 and those after it.

    Printable Latin-1 characters stand for themselves, the other 68 bytes follow from U+0100 on.
    """
    own = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), 256)]
    others = [byte for byte in range(256) if byte not in own]
    letters = [*map(chr, own), *(chr(256 + number) for number in range(len(others)))]
    return {letter: bytes([byte]) for letter, byte in zip(letters, [*own, *others], strict=True)}


def _roles(folder: Path, fast: tokenizers.Tokenizer, spec: _Spec) -> Roles:
    """Read the roles of special tokens; bos may also be known from what begins an encoded text."""
    first = next(iter(fast.encode("a").tokens), None)
    return Roles.read(folder, spec.ids, spec.special, first if first in spec.special else None)


def _merge(pair: object) -> str:
    """A merge as one text; newer files have a list of two pieces."""
    match pair:
        case str(text):
            return text
        case [str(left), str(right)]:
            return f"{left} {right}"
    raise ValueError(f"{pair!r} is not a merge")


def _joined(rows: Iterable[Sequence[int]]) -> tuple[Ids, Lengths]:
    arrays = [np.fromiter(row, np.int32, len(row)) for row in rows]
    lengths = np.array(list(map(len, arrays)), np.int64)
    return np.concatenate(arrays) if arrays else np.empty(0, np.int32), lengths


def _load(content: bytes, name: str) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_buffer(content)
    except Exception as error:  # tokenizers raises nothing more precise
        raise AtlasError(f"{name}: not a tokenizer.json ({one_line(error)[:200]})") from None
