"""Convert a sentencepiece model to a tokenizer.json, the format of the tokenizers library."""

from collections.abc import Iterator
from re import escape
from typing import Any

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as FastTokenizer

from atlas.tokens.encoders import SPACE_MARK, merges
from atlas.tokens.tokenizer import Tokenizer

# Normalization of word vocabularies: white space becomes one space, each word starts with one.
WORD_RULES = (
    (r"[^\S\n]+", " "),
    (r" ?\n ?", "\n"),
    (r"^ | $", ""),
    (r"(?<=\n|^)(?=[^\n])", " "),
)


def fast_tokenizer(tokenizer: Tokenizer, *, add_bos_token: bool) -> FastTokenizer:
    """Build a tokenizer with the same vocabulary that gives the same ids for any text.

    With ``add_bos_token`` a text that is encoded with special tokens begins with bos.
    """
    fast = FastTokenizer(_model(tokenizer))
    fast.normalizer = normalizers.Sequence(list(_normalizers(tokenizer)))
    special = [i for i in range(tokenizer.vocab_size) if tokenizer.processor.is_control(i)]
    if tokenizer.kind == "word":
        line_or_word = Regex(rf"\n|{SPACE_MARK}[^\n{SPACE_MARK}]+")
        fast.pre_tokenizer = pre_tokenizers.Split(line_or_word, "isolated")
    elif tokenizer.kind == "unigram":
        # tokenizers would find the pieces of special tokens in a text, so it is split inside them.
        splits = "|".join(_split_pattern(tokenizer, i) for i in (tokenizer.unk, *special))
        fast.pre_tokenizer = pre_tokenizers.Split(Regex(splits), "merged_with_previous")
    fast.decoder = decoders.Sequence(list(_decoders(tokenizer)))
    fast.add_special_tokens(
        [AddedToken(tokenizer.piece(i), special=True, normalized=False) for i in special]
    )
    words = (tokenizer.piece(i).replace(SPACE_MARK, " ") for i in sorted(tokenizer.user_defined))
    fast.add_tokens([AddedToken(word, special=False, normalized=False) for word in words])
    if add_bos_token:
        bos = tokenizer.piece(tokenizer.bos)
        fast.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A $B:1", special_tokens=[(bos, tokenizer.bos)]
        )
    return fast


def tokenizer_settings(tokenizer: Tokenizer, context_length: int) -> dict[str, Any]:
    """tokenizer_config.json: the class and the special tokens."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context_length,
        "bos_token": tokenizer.piece(tokenizer.bos),
        "eos_token": tokenizer.piece(tokenizer.eos),
        "pad_token": tokenizer.piece(tokenizer.pad),
        "unk_token": tokenizer.piece(tokenizer.unk),
        "clean_up_tokenization_spaces": False,
    }


def _split_pattern(tokenizer: Tokenizer, identity: int) -> str:
    """A pattern that matches the start of a piece where the rest of the piece follows.

    The split is next to a letter of the vocabulary, because a run of unknown letters is one token.
    """
    piece = tokenizer.piece(identity)
    known = (tokenizer.processor.piece_to_id(letter) != tokenizer.unk for letter in piece)
    cut = max(next((index for index, is_known in enumerate(known) if is_known), 1), 1)
    return f"{escape(piece[:cut])}(?={escape(piece[cut:])})"


def _model(tokenizer: Tokenizer) -> models.Model:
    vocabulary = {tokenizer.piece(i): i for i in range(tokenizer.vocab_size)}
    unknown = tokenizer.piece(tokenizer.unk)
    match tokenizer.kind:
        case "unigram":
            scores = [(piece, tokenizer.processor.get_score(i)) for piece, i in vocabulary.items()]
            return models.Unigram(scores, tokenizer.unk, tokenizer.has_bytes)
        case "word":
            return models.WordLevel(vocabulary, unknown)
    return models.BPE(
        vocabulary,
        list(merges(tokenizer.spec)) if tokenizer.kind == "bpe" else [],
        unk_token=unknown,
        byte_fallback=tokenizer.has_bytes,
        fuse_unk=not tokenizer.has_bytes,
    )


def _normalizers(tokenizer: Tokenizer) -> Iterator[normalizers.Normalizer]:
    """The normalization that sentencepiece applies before it splits a text."""
    spec = tokenizer.normalizer
    if tokenizer.kind == "word":
        for pattern, replacement in WORD_RULES:
            yield normalizers.Replace(Regex(pattern), replacement)
    else:
        if spec.precompiled_charsmap:
            yield normalizers.Precompiled(spec.precompiled_charsmap)
        if spec.remove_extra_whitespaces:
            yield normalizers.Strip()
            yield normalizers.Replace(Regex(" {2,}"), " ")
        if spec.add_dummy_prefix:
            yield normalizers.Prepend(" ")
    if spec.escape_whitespaces:
        yield normalizers.Replace(" ", SPACE_MARK)


def _decoders(tokenizer: Tokenizer) -> Iterator[decoders.Decoder]:
    """The steps from pieces back to text."""
    yield decoders.Replace(tokenizer.piece(tokenizer.unk), tokenizer.decode([tokenizer.unk]))
    yield decoders.Replace(SPACE_MARK, " ")
    yield decoders.ByteFallback()
    yield decoders.Fuse()
    if tokenizer.kind == "word":
        yield decoders.Replace("\n ", "\n")
    if tokenizer.normalizer.add_dummy_prefix:
        yield decoders.Strip(" ", 1, 0)
