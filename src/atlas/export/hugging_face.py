"""Write a model as a folder that transformers loads: config, weights, tokenizer.

A sentencepiece model becomes a tokenizer.json, the format of the tokenizers library; one that is a
tokenizer.json already is passed through byte for byte, unless it must learn to add bos.
"""

from collections.abc import Iterator
from pathlib import Path
from re import escape
from typing import Any

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as FastTokenizer

from atlas.export.bundle import ModelBundle, StoredWeights, source_eos
from atlas.inference.sampling import DEFAULT_SAMPLING
from atlas.model.foreign.hugging_face import model_settings
from atlas.model.foreign.tensors import TensorConverter
from atlas.model.weights import WEIGHTS, write_weights
from atlas.params.runtime_support import HuggingFaceClass
from atlas.pipeline.files import write_json, write_text
from atlas.tokens.byte_level import TOKENIZER_FILE, ByteLevelTokenizer
from atlas.tokens.sentencepiece import MODEL_FILE, SentencePieceTokenizer, merges
from atlas.tokens.tokenizer import SPACE_MARK, Tokenizer

FORMAT = {"format": "pt"}  # transformers refuses a safetensors file without this metadata
# Normalization of word vocabularies: white space becomes one space, each word starts with one.
WORD_RULES = (
    (r"[^\S\n]+", " "),
    (r" ?\n ?", "\n"),
    (r"^ | $", ""),
    (r"(?<=\n|^)(?=[^\n])", " "),
)


def write_hugging_face(folder: Path, bundle: ModelBundle, kind: HuggingFaceClass) -> None:
    """Create a folder with the model, written for one of transformers' classes."""
    config, tokenizer = bundle.config, bundle.tokenizer
    folder.mkdir()
    stored = StoredWeights(bundle.folder)
    converter = TensorConverter.for_hugging_face(config, stored.shapes, kind)
    tensors = {name: recipe(stored.read) for name, recipe in converter.recipes()}
    write_weights(tensors, folder / WEIGHTS, FORMAT)
    ids = {"bos": tokenizer.bos, "eos": source_eos(tokenizer), "pad": tokenizer.pad}
    named = [role for role in ids if f"{role}_token" in tokenizer.special_names]
    roles: dict[str, Any] = {f"{role}_token_id": ids[role] for role in named}
    write_json(folder / "config.json", model_settings(config, kind) | roles)
    sampling = {name: getattr(DEFAULT_SAMPLING, name) for name in ("temperature", "top_k", "top_p")}
    limits = {"do_sample": True, "max_length": config.context_length}
    if len(tokenizer.end_ids) > 1:
        roles["eos_token_id"] = sorted(tokenizer.end_ids)
    write_json(folder / "generation_config.json", limits | sampling | roles)
    tokenizer_settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": config.context_length,
        **tokenizer.special_names,
        "clean_up_tokenization_spaces": False,
        # Otherwise transformers 4 passes token_type_ids to models that have none.
        "model_input_names": ["input_ids", "attention_mask"],
        "padding_side": "left",  # a batch is continued at the end of its rows
        "chat_template": bundle.chat_template,
    }
    write_json(folder / "tokenizer_config.json", tokenizer_settings)
    if isinstance(tokenizer, ByteLevelTokenizer):
        content = tokenizer.content
        fast = FastTokenizer.from_buffer(content)
        if config.add_bos_token and tokenizer.bos not in fast.encode("").ids:
            begin_with_bos(fast, tokenizer)
            content = fast.to_str(pretty=True).encode()
        (folder / TOKENIZER_FILE).write_bytes(content)
    elif isinstance(tokenizer, SentencePieceTokenizer):
        fast = fast_tokenizer(tokenizer, add_bos_token=config.add_bos_token)
        write_text(folder / TOKENIZER_FILE, fast.to_str(pretty=True))
        (folder / MODEL_FILE).write_bytes(tokenizer.model)


def fast_tokenizer(tokenizer: SentencePieceTokenizer, *, add_bos_token: bool) -> FastTokenizer:
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
        begin_with_bos(fast, tokenizer)
    return fast


def begin_with_bos(fast: FastTokenizer, tokenizer: Tokenizer) -> None:
    """Let every text that is encoded with special tokens begin with bos."""
    bos = tokenizer.piece(tokenizer.bos)
    fast.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A $B:1", special_tokens=[(bos, tokenizer.bos)]
    )


def _split_pattern(tokenizer: SentencePieceTokenizer, identity: int) -> str:
    """A pattern that matches the start of a piece where the rest of the piece follows.

    The split is next to a letter of the vocabulary, because a run of unknown letters is one token.
    """
    piece = tokenizer.piece(identity)
    known = (tokenizer.processor.piece_to_id(letter) != tokenizer.unk for letter in piece)
    cut = max(next((index for index, is_known in enumerate(known) if is_known), 1), 1)
    return f"{escape(piece[:cut])}(?={escape(piece[cut:])})"


def _model(tokenizer: SentencePieceTokenizer) -> models.Model:
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


def _normalizers(tokenizer: SentencePieceTokenizer) -> Iterator[normalizers.Normalizer]:
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


def _decoders(tokenizer: SentencePieceTokenizer) -> Iterator[decoders.Decoder]:
    """The steps from pieces back to text."""
    yield decoders.Replace(tokenizer.piece(tokenizer.unk), tokenizer.decode([tokenizer.unk]))
    yield decoders.Replace(SPACE_MARK, " ")
    yield decoders.ByteFallback()
    yield decoders.Fuse()
    if tokenizer.kind == "word":
        yield decoders.Replace("\n ", "\n")
    if tokenizer.normalizer.add_dummy_prefix:
        yield decoders.Strip(" ", 1, 0)
