"""The key-value part of a GGUF file: general metadata, hyperparameters and the tokenizer."""

import gguf
from gguf import GGUFWriter
from sentencepiece.sentencepiece_model_pb2 import ModelProto

from atlas.export.metadata import ModelMetadata
from atlas.model.config import ModelConfig
from atlas.model.masks import ALIBI_EXPONENT
from atlas.params.runtime_support import Architecture, rope_scaling
from atlas.tokens.tokenizer import Tokenizer


def add_general(writer: GGUFWriter, metadata: ModelMetadata, parameters: int) -> None:
    """Add the ``general.*`` keys; empty ones are left out."""
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(metadata.name)
    writer.add_size_label(size_label(parameters))
    for add, value in (
        (writer.add_author, metadata.author),
        (writer.add_license, metadata.license),
        (writer.add_description, metadata.description),
        (writer.add_source_url, metadata.source),
    ):
        if value:
            add(value)
    writer.add_tags(["text-generation"])
    if metadata.data:
        writer.add_dataset_count(1)
        writer.add_dataset_name(0, metadata.data.corpus)
        writer.add_dataset_description(0, metadata.data.describe())
        if metadata.data.urls:
            writer.add_dataset_url(0, metadata.data.urls[0])


def size_label(parameters: int) -> str:
    """Abbreviate a number of parameters as in file names: 1.0M, 124.4M, 1.1B."""
    for unit, size in (("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if parameters >= size:
            return f"{parameters / size:.1f}{unit}"
    return str(parameters)


def add_hyperparameters(
    writer: GGUFWriter, config: ModelConfig, architecture: Architecture
) -> None:
    """Add the keys of the architecture."""
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.context_length)
    writer.add_embedding_length(config.d_model)
    writer.add_block_count(config.n_layer)
    writer.add_feed_forward_length(config.d_ff)
    writer.add_head_count(config.n_head)
    writer.add_head_count_kv(config.n_kv_head)
    writer.add_key_length(config.head_size)
    writer.add_value_length(config.head_size)
    if config.norm == "rmsnorm":
        writer.add_layer_norm_rms_eps(config.norm_eps)
    else:
        writer.add_layer_norm_eps(config.norm_eps)
    if architecture.uses_rope:
        writer.add_rope_freq_base(config.rope_theta)
        writer.add_rope_dimension_count(config.head_size)
        scaling = rope_scaling(config.model_dump())
        if scaling != 1:
            writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
            writer.add_rope_scaling_factor(scaling)
    elif config.positions == "alibi":
        writer.add_max_alibi_bias(ALIBI_EXPONENT)


def add_tokenizer(writer: GGUFWriter, tokenizer: Tokenizer, *, add_bos_token: bool) -> None:
    """Add the vocabulary of a sentencepiece model with every flag that llama.cpp reads.

    llama.cpp's ``llama`` tokenizer merges by score, like sentencepiece's BPE; a character model is
    one without merges. Its ``t5`` tokenizer finds the best path, like a unigram model; in a
    vocabulary of words each word is one piece.

    Args:
        writer: receives the keys.
        tokenizer: the tokenizer of the model.
        add_bos_token: texts begin with the bos token.
    """
    normalizer = tokenizer.normalizer
    pieces = ModelProto.FromString(tokenizer.model).pieces
    writer.add_tokenizer_model("llama" if tokenizer.kind in ("bpe", "char") else "t5")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([piece.piece.encode() for piece in pieces])
    writer.add_token_scores([piece.score for piece in pieces])
    writer.add_token_types([piece.type for piece in pieces])  # sentencepiece's numbers are GGUF's
    writer.add_bos_token_id(tokenizer.bos)
    writer.add_eos_token_id(tokenizer.eos)
    writer.add_unk_token_id(tokenizer.unk)
    writer.add_pad_token_id(tokenizer.pad)
    writer.add_add_bos_token(add_bos_token)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(normalizer.add_dummy_prefix)
    writer.add_remove_extra_whitespaces(normalizer.remove_extra_whitespaces)
    if normalizer.precompiled_charsmap:
        writer.add_precompiled_charsmap(normalizer.precompiled_charsmap)
