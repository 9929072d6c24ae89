"""What a GGUF file says of its model under llama.cpp's keys: whose it is, and its shape."""

import gguf
from gguf import GGUFWriter

from atlas.export.about import About
from atlas.export.rope import scaling_of
from atlas.model.config import ModelConfig
from atlas.model.masks import ALIBI_EXPONENT
from atlas.params.runtime_support import Architecture


def add_about(writer: GGUFWriter, about: About, parameters: int) -> None:
    """Adds the ``general`` keys that there is something to say under."""
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(about.name)
    writer.add_size_label(size_label(parameters))
    for add, value in (
        (writer.add_author, about.author),
        (writer.add_license, about.licence),
        (writer.add_description, about.description),
        (writer.add_source_url, about.source),
    ):
        if value:
            add(value)
    writer.add_tags(["text-generation"])
    if about.data:
        writer.add_dataset_count(1)
        writer.add_dataset_name(0, about.data.corpus)
        writer.add_dataset_description(0, about.data.describe())
        if about.data.urls:
            writer.add_dataset_url(0, about.data.urls[0])


def size_label(parameters: int) -> str:
    """As files are named by it: 1.0M, 124.4M, 1.1B."""
    for unit, size in (("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if parameters >= size:
            return f"{parameters / size:.1f}{unit}"
    return str(parameters)


def add_shape(writer: GGUFWriter, config: ModelConfig, architecture: Architecture) -> None:
    """Adds the hyperparameters."""
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
    if architecture.rotates:
        writer.add_rope_freq_base(config.rope_theta)
        writer.add_rope_dimension_count(config.head_size)
        scaling = scaling_of(config)
        if scaling != 1:
            writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
            writer.add_rope_scaling_factor(scaling)
    elif config.positions == "alibi":
        writer.add_max_alibi_bias(ALIBI_EXPONENT)
