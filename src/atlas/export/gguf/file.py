"""Writes a model as a GGUF file, one tensor in memory at a time."""

from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter
from safetensors import safe_open
from tqdm import tqdm

from atlas.architectures import Architecture
from atlas.export.gguf.changes import Array
from atlas.export.gguf.tensors import GgufTensor, Translation
from atlas.export.gguf.tokenizer import add_tokenizer
from atlas.export.gguf.types import file_type, types_of
from atlas.formats import GgufFormat
from atlas.model.config import ModelConfig
from atlas.model.positions import ALIBI_EXPONENT
from atlas.model.storage import WEIGHTS
from atlas.tokens.tokenizer import Tokenizer

NO_ROTATION = 1e30  # positions divided by it are 0 for every angle


def write_gguf(
    path: Path,
    model: Path,
    architecture: Architecture,
    tokenizer: Tokenizer,
    name: str,
    format_name: GgufFormat,
) -> None:
    """Writes a model with its tokenizer.

    Args:
        path: the file to write.
        model: folder with config.json and model.safetensors.
        architecture: llama.cpp's, to write it as.
        tokenizer: the one that the model was trained with.
        name: of the model, for people.
        format_name: one that needs no K types.
    """
    config = ModelConfig.read(model)
    writer = GGUFWriter(path, architecture.name)
    writer.add_name(name)
    writer.add_file_type(file_type(format_name))
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    add_shape(writer, config, architecture)
    add_tokenizer(writer, tokenizer)
    with safe_open(model / WEIGHTS, framework="pt") as weights:
        shapes = {key: tuple(weights.get_slice(key).get_shape()) for key in weights.keys()}  # noqa: SIM118

        def read(key: str) -> Array:
            array: Array = weights.get_tensor(key).to(torch.float32).numpy()
            return array

        tensors = list(Translation(config, architecture, shapes, read).tensors())
        types = types_of(tensors, format_name)
        for tensor, kind in zip(tensors, types, strict=True):
            writer.add_tensor_info(
                tensor.name, tensor.shape, np.dtype(np.float32), _size(tensor, kind), kind
            )
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for tensor, kind in tqdm(
            zip(tensors, types, strict=True), desc=path.name, total=len(tensors), unit="tensor"
        ):
            writer.write_tensor_data(gguf.quants.quantize(tensor.read(), kind))
    writer.close()


def add_shape(writer: GGUFWriter, config: ModelConfig, architecture: Architecture) -> None:
    """Adds the hyperparameters under llama.cpp's keys."""
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
        scaling = NO_ROTATION if config.positions == "none" else config.rope_scaling
        if scaling != 1:
            writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
            writer.add_rope_scaling_factor(scaling)
    elif config.positions == "alibi":
        writer.add_max_alibi_bias(ALIBI_EXPONENT)


def _size(tensor: GgufTensor, kind: GGMLQuantizationType) -> int:
    block, bytes_per_block = gguf.GGML_QUANT_SIZES[kind]
    return int(np.prod(tensor.shape)) // block * bytes_per_block
