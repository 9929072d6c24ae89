"""Load a tokenizer of any form: a file of its own, a folder, or a part of a GGUF file."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from atlas.errors import AtlasError
from atlas.tokens.byte_level import TOKENIZER_FILE, ByteLevelTokenizer, TokenType, byte_letters
from atlas.tokens.pre_tokenizers import pre_tokenizer_named, remove
from atlas.tokens.roles import CONFIG_FILE, Roles
from atlas.tokens.sentencepiece import MODEL_FILE, SentencePieceTokenizer
from atlas.tokens.tokenizer import HINT, Tokenizer

if TYPE_CHECKING:
    from atlas.pipeline.gguf_file import GGUFFile

PREFIX = "tokenizer.ggml."
TOKENS, TYPES, SCORES, MERGES = (
    PREFIX + key for key in ("tokens", "token_type", "scores", "merges")
)
# GGUF's names of roles.
KEYS = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}


def load_tokenizer(path: Path) -> Tokenizer:
    """Load a tokenizer; see ``Tokenizer.load``."""
    if path.is_dir():
        name = TOKENIZER_FILE if (path / TOKENIZER_FILE).is_file() else MODEL_FILE
        path = path / name
    try:
        match path.suffix:
            case ".gguf":
                return from_gguf(path)
            case ".json":
                return ByteLevelTokenizer.read(path)
        return _sentencepiece(path)
    except FileNotFoundError:
        raise AtlasError(f"{path}: no such tokenizer; {HINT}") from None
    except OSError as error:
        raise AtlasError(f"{path}: {error.strerror}; {HINT}") from None


def from_gguf(path: Path) -> Tokenizer:
    """Read the tokenizer of a GGUF file."""
    from atlas.pipeline.gguf_file import read_gguf

    if not path.is_file():
        raise AtlasError(f"{path}: no such tokenizer; {HINT}")
    file = read_gguf(path, whole=(TOKENS, TYPES, SCORES, MERGES))
    kind = file.get(PREFIX + "model")
    if kind != "gpt2":
        _refuse(path, f"its tokenizer is of the kind {kind!r}" if kind else "it has no tokenizer")
    return _byte_level(file, str(path))


def _byte_level(file: "GGUFFile", path: str) -> ByteLevelTokenizer:
    """Turn the vocabulary and the merges into a tokenizer.json."""
    tokens, types = _vocabulary(file, path)
    merges = file.get(MERGES)
    if not isinstance(merges, list) or not all(isinstance(each, str) for each in merges):
        _refuse(path, "it has no merges")
    pre = pre_tokenizer_named(str(file.get(PREFIX + "pre", "default")), path)
    control = (TokenType.CONTROL, TokenType.UNKNOWN)
    special = [token for token, kind in zip(tokens, types, strict=True) if kind in control]
    roles = _roles(file, tokens, special, adds_bos=pre.ignore_merges, path=path)
    ids = {token: identity for identity, token in enumerate(tokens)}
    added = [
        {"id": identity, "content": tokens[identity], "special": kind != TokenType.USER_DEFINED}
        | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        for identity, kind in enumerate(types)
        if kind in (*control, TokenType.USER_DEFINED)
    ]
    missing = [letter for letter in byte_letters() if letter not in ids]
    steps = [*pre.steps(), *([remove(missing)] if missing else [])]
    spec = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
        "post_processor": _begins_with(roles.bos, ids) if roles.add_bos else None,
        "decoder": {
            "type": "ByteLevel",
            "add_prefix_space": True,
            "trim_offsets": True,
            "use_regex": True,
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": pre.ignore_merges,
            "vocab": ids,
            "merges": merges,
        },
    }
    content = json.dumps(spec, ensure_ascii=False, indent=1).encode()
    return ByteLevelTokenizer(content, roles, path)


def _begins_with(bos: str | None, ids: Mapping[str, int]) -> dict[str, Any] | None:
    """The step of a tokenizer.json that puts bos before a text."""
    if bos is None:
        return None
    parts = [{"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    return {
        "type": "TemplateProcessing",
        "single": parts,
        "pair": [*parts, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {bos: {"id": bos, "ids": [ids[bos]], "tokens": [bos]}},
    }


def _vocabulary(file: "GGUFFile", path: str) -> tuple[list[str], list[int]]:
    """Return the tokens and their types."""
    tokens, types = file.get(TOKENS), file.get(TYPES)
    if not isinstance(tokens, list) or not all(isinstance(each, str) for each in tokens):
        _refuse(path, "it has no list of tokens")
    if types is None:
        types = [int(TokenType.NORMAL)] * len(tokens)
    if not isinstance(types, list) or len(types) != len(tokens):
        _refuse(path, f"it has {len(tokens):,} tokens, but another number of types")
    if len(set(tokens)) < len(tokens):
        _refuse(path, "two of its tokens are the same")
    return tokens, types


def _roles(
    file: "GGUFFile", tokens: Sequence[str], special: Sequence[str], *, adds_bos: bool, path: str
) -> Roles:
    """Return the roles that the keys of a GGUF file give to tokens."""

    def token(key: str) -> str | None:
        identity = file.get(f"{PREFIX}{key}_token_id")
        known = isinstance(identity, int) and identity < len(tokens)
        return tokens[identity] if known else None

    template = file.get("tokenizer.chat_template")
    return Roles.checked(
        {role: token(key) for role, key in KEYS.items()},
        [name for name in map(token, ("eot", "eom")) if name],
        {name: identity for identity, name in enumerate(tokens)},
        special,
        add_bos=bool(file.get(PREFIX + "add_bos_token", adds_bos)),
        chat_template=template if isinstance(template, str) else None,
        file=path,
    )


def _sentencepiece(path: Path) -> SentencePieceTokenizer:
    """Load a sentencepiece model, and the roles of its pieces from the files beside it."""
    content = path.read_bytes()
    tokenizer = SentencePieceTokenizer(content, str(path))
    if not (path.parent / CONFIG_FILE).is_file():
        return tokenizer
    pieces = tokenizer.spec.pieces
    ids = {piece.piece: identity for identity, piece in enumerate(pieces)}
    special = [each.piece for each in pieces if each.type in (each.CONTROL, each.UNKNOWN)]
    roles = Roles.read(path.parent, ids, special, first=None)
    return SentencePieceTokenizer(content, str(path), roles)


def _refuse(path: str | Path, reason: str) -> NoReturn:
    raise AtlasError(
        f"{path}: {reason}; Atlas reads tokenizers of the kinds gpt2, llama and t5 from GGUF files"
    )
