"""Load a tokenizer of any form: a file of its own, a folder, or a part of a GGUF file."""

import json
import logging
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from sentencepiece.sentencepiece_model_pb2 import ModelProto, TrainerSpec
from tokenizers import Tokenizer as Tokenizers

from atlas.errors import AtlasError, one_line
from atlas.tokens.byte_level import TOKENIZER_FILE, ByteLevelTokenizer, TokenType, byte_letters
from atlas.tokens.pre_tokenizers import pre_tokenizer_named, remove
from atlas.tokens.roles import CONFIG_FILE, Roles
from atlas.tokens.sentencepiece import BYTE_NAME, MODEL_FILE, SentencePieceTokenizer, merges
from atlas.tokens.tokenizer import HINT, SPACE_MARK, Tokenizer

if TYPE_CHECKING:
    from atlas.pipeline.gguf_file import GGUFFile

PREFIX = "tokenizer.ggml."
TOKENS, TYPES, SCORES, MERGES = (
    PREFIX + key for key in ("tokens", "token_type", "scores", "merges")
)
CHARSMAP = PREFIX + "precompiled_charsmap"
logger = logging.getLogger(__name__)
# Texts that a converted tokenizer must encode as its source does.
PROBES = (
    "The quick brown fox, 12 345.6 times!\n\n  It's \t(a) [b] {c}\r\n",
    " leading", "trailing  ", "", "\n", "a  b   c    d", "x" * 40,
    "\u00e9t\u00e9 \u65e5\u672c \U0001f600\x00",
    "<s></s><unk><0x41>", "camelCase snake_case http://a.b/c?d=e&f", "def f(x):\n    return x\n",
)  # fmt: skip
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
                return _from_json(path)
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
    file = read_gguf(path, whole=(TOKENS, TYPES, SCORES, MERGES, CHARSMAP))
    kind = file.get(PREFIX + "model")
    if kind == "gpt2":
        return _byte_level(file, str(path))
    if kind not in ("llama", "t5"):
        _refuse(path, f"its tokenizer is of the kind {kind!r}" if kind else "it has no tokenizer")
    return _scored_pieces(file, str(path))


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


def _scored_pieces(file: "GGUFFile", path: str) -> SentencePieceTokenizer:
    """Turn pieces with scores into a sentencepiece model."""
    tokens, types = _vocabulary(file, path)
    scores = file.get(SCORES)
    if not isinstance(scores, list) or len(scores) != len(tokens):
        _refuse(path, "it does not have a score for each token")
    if not (all(isinstance(each, float) for each in scores) and set(TokenType).issuperset(types)):
        _refuse(path, "its tokens have scores that are no numbers, or unknown types")
    is_bpe = file.get(PREFIX + "model") == "llama"
    special = [
        token
        for token, kind in zip(tokens, types, strict=True)
        if kind in (TokenType.CONTROL, TokenType.UNKNOWN)
    ]
    roles = _roles(file, tokens, special, adds_bos=is_bpe, path=path)
    spec = ModelProto()
    for token, score, kind in zip(tokens, scores, types, strict=True):
        spec.pieces.add(piece=token, score=score, type=kind)
    spec.trainer_spec.model_type = TrainerSpec.BPE if is_bpe else TrainerSpec.UNIGRAM
    rules = spec.normalizer_spec
    rules.add_dummy_prefix = bool(file.get(PREFIX + "add_space_prefix", is_bpe))
    rules.remove_extra_whitespaces = bool(file.get(PREFIX + "remove_extra_whitespaces", False))
    if charsmap := file.get(CHARSMAP):
        if not isinstance(charsmap, list) or not all(isinstance(each, int) for each in charsmap):
            _refuse(path, f"its {CHARSMAP} is not a list of bytes")
        rules.precompiled_charsmap = bytes(each & 255 for each in charsmap)
    return _with_roles(spec, roles, path)


def _with_roles(spec: ModelProto, roles: Roles, path: str) -> SentencePieceTokenizer:
    """Complete a model by the names of its special pieces."""
    trainer, kinds = spec.trainer_spec, {piece.piece: piece for piece in spec.pieces}
    trainer.byte_fallback = any(piece.type == piece.BYTE for piece in spec.pieces)
    spec.normalizer_spec.name = "identity"
    spec.normalizer_spec.escape_whitespaces = True
    unknown = next((each.piece for each in spec.pieces if each.type == each.UNKNOWN), roles.unk)
    if unknown is None or unknown not in kinds:
        _refuse(path, "it names no token for what is unknown")
    for role, name in {
        "unk": unknown, "bos": roles.bos, "eos": roles.eos, "pad": roles.pad
    }.items():  # fmt: skip
        identity = -1
        if name is not None and (role == "unk" or name != unknown):
            identity = next(each for each, piece in enumerate(spec.pieces) if piece.piece == name)
            setattr(trainer, f"{role}_piece", name)
            kinds[name].type = kinds[name].UNKNOWN if role == "unk" else kinds[name].CONTROL
        setattr(trainer, f"{role}_id", identity)
    return SentencePieceTokenizer(spec.SerializeToString(deterministic=True), path, roles)


def _from_json(path: Path) -> Tokenizer:
    """Read a tokenizer.json: byte-level BPE, or BPE as sentencepiece has it."""
    content = path.read_bytes()
    try:
        spec = json.loads(content)
        model = spec["model"]
        is_scored = model.get("type", "BPE") != "BPE" or bool(model.get("byte_fallback"))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        is_scored = False
    if not is_scored:
        return ByteLevelTokenizer(content, path.parent, str(path))
    try:
        fast = Tokenizers.from_buffer(content)
    except Exception as error:  # tokenizers raises nothing more precise
        raise AtlasError(f"{path}: not a tokenizer.json ({one_line(error)[:200]})") from None
    spec.setdefault("added_tokens", [])
    special = [each["content"] for each in spec["added_tokens"] if each["special"]]
    first = next(iter(fast.encode("a").tokens), None)
    first = first if first in special else None
    model_file = path.with_name(MODEL_FILE)
    if model_file.is_file():
        tokenizer = _sentencepiece(model_file, first)
        pieces = {piece.piece: each for each, piece in enumerate(tokenizer.spec.pieces)}
        if pieces == fast.get_vocab():
            return tokenizer
    ids = fast.get_vocab()
    roles = Roles.read(path.parent, ids, special, first)
    try:
        proto = _scored_by_order(spec, ids)
    except _InexpressibleError as error:
        raise AtlasError(
            f"{path}: {error}, so it can't become a sentencepiece model, the only form that "
            "llama.cpp reads such a tokenizer in"
        ) from None
    tokenizer = _with_roles(proto, roles, str(path))
    fast.encode_special_tokens = True
    words = [each["content"] for each in spec["added_tokens"]]
    probes = [*PROBES, *(f"a{word} b {word}" for word in words)]
    if spec.get("normalizer") is None:  # Metaspace adds no blank where there is one
        probes = [probe.lstrip(" ") for probe in probes]
        logger.warning("%s: a text that begins with a blank gets one more, as in llama.cpp", path)
    for probe in probes:
        if tokenizer.encode(probe) != fast.encode(probe, add_special_tokens=False).ids:
            raise AtlasError(
                f"{path}: as a sentencepiece model it would encode {probe[:40]!r} differently, so "
                "it can't be used; take the tokenizer.model of the same source"
            )
    return tokenizer


class _InexpressibleError(Exception):
    """A rule of a tokenizer.json that sentencepiece doesn't have."""


def _scored_by_order(spec: Mapping[str, Any], ids: Mapping[str, int]) -> ModelProto:
    """Turn merges in order into pieces with scores: the earlier a merge, the higher its piece."""
    model = spec["model"]
    if model.get("type", "BPE") != "BPE":
        raise _InexpressibleError(f"its model is {model['type']}")
    order = [
        tuple(each.split(" ")) if isinstance(each, str) else tuple(each) for each in model["merges"]
    ]
    ranks: dict[str, int] = {}
    for rank, pair in enumerate(order):
        ranks.setdefault("".join(pair), rank)
    added = {each["content"]: bool(each["special"]) for each in spec["added_tokens"]}
    proto = ModelProto()
    in_order = sorted(ids, key=ids.__getitem__)
    if [ids[each] for each in in_order] != list(range(len(ids))):
        raise _InexpressibleError("its ids have gaps")
    for number, token in enumerate(in_order):
        kind = TokenType.NORMAL
        if token in added:
            kind = TokenType.CONTROL if added[token] else TokenType.USER_DEFINED
        elif token == model.get("unk_token"):
            kind = TokenType.UNKNOWN
        elif BYTE_NAME.fullmatch(token):
            kind = TokenType.BYTE
        text = token.replace(" ", SPACE_MARK) if kind == TokenType.USER_DEFINED else token
        score = -float(ranks.get(token, len(order) + number))
        proto.pieces.add(piece=text, score=score, type=int(kind))
    proto.trainer_spec.model_type = TrainerSpec.BPE
    rules = proto.normalizer_spec
    rules.remove_extra_whitespaces = False
    rules.add_dummy_prefix = _adds_blank(spec.get("normalizer"), spec.get("pre_tokenizer"))
    if rules.add_dummy_prefix and not all(added.values()):
        raise _InexpressibleError("it puts a blank after each token that is not special")
    # sentencepiece merges any two pieces that make a piece.
    if set(merges(proto)) != set(order):
        raise _InexpressibleError("it lacks some merges of two pieces into a third")
    if [piece for piece, _ in groupby("".join(pair) for pair in order)] != list(ranks):
        raise _InexpressibleError("merges that make the same piece are not next to each other")
    return proto


def _adds_blank(normalizer: object, pre_tokenizer: object) -> bool:
    """True if a blank is put before a text; blanks must be written as U+2581."""
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE_MARK}
    prepend = {"type": "Prepend", "prepend": SPACE_MARK}
    match normalizer, pre_tokenizer:
        case {"type": "Sequence", "normalizers": [first, second]}, None:
            if (first, second) == (prepend, replace):
                return True
        case {"type": "Replace"}, None | {"type": "Split"}:
            split = {"type": "Split", "pattern": {"String": " "}, "invert": False}
            split["behavior"] = "MergedWithPrevious"  # no blank is left to split at
            if normalizer == replace and pre_tokenizer in (None, split):
                return False
        case None, {"type": "Metaspace", "replacement": "\u2581", "split": False, **settings}:
            return settings.get("prepend_scheme", "always") != "never"
    steps = json.dumps([normalizer, pre_tokenizer])[:200]
    raise _InexpressibleError(f"it changes a text in a way of its own ({steps})")


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


def _sentencepiece(path: Path, first: str | None = None) -> SentencePieceTokenizer:
    """Load a sentencepiece model, and the roles of its pieces from the files next to it.

    ``first`` is the piece that a tokenizer.json next to it puts before a text.
    """
    content = path.read_bytes()
    tokenizer = SentencePieceTokenizer(content, str(path))
    if not (path.parent / CONFIG_FILE).is_file():
        return tokenizer
    pieces = tokenizer.spec.pieces
    ids = {piece.piece: identity for identity, piece in enumerate(pieces)}
    special = [each.piece for each in pieces if each.type in (each.CONTROL, each.UNKNOWN)]
    roles = Roles.read(path.parent, ids, special, first)
    return SentencePieceTokenizer(content, str(path), roles)


def _refuse(path: str | Path, reason: str) -> NoReturn:
    raise AtlasError(
        f"{path}: {reason}; Atlas reads tokenizers of the kinds gpt2, llama and t5 from GGUF files"
    )
