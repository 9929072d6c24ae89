"""Write a model as a GGUF file: key-value pairs (metadata, hyperparameters, tokenizer) and tensors.

gguf-py writes everything except the values of the tensors, which are read, encoded and written in
chunks. Names, shapes and sizes come first in the file, so gguf-py gets those of all tensors before
the first tensor is read.
"""

import math
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import torch
from gguf import GGMLQuantizationType, GGUFWriter
from sentencepiece.sentencepiece_model_pb2 import ModelProto
from torch import Tensor
from tqdm import tqdm

from atlas.errors import AtlasError
from atlas.export.bundle import ModelBundle, ModelMetadata, StoredWeights, source_eos
from atlas.export.gguf.quantize import file_type, tensor_types
from atlas.model.counts import count
from atlas.model.foreign.gguf import add_hyperparameters
from atlas.model.foreign.tensors import TensorConverter
from atlas.params.runtime_support import BLOCK_SIZE, Architecture, GgufFormat
from atlas.pipeline.processes import threads
from atlas.tokens.byte_level import ByteLevelTokenizer
from atlas.tokens.conversations import without_tags
from atlas.tokens.roles import ENDS_OF_GENERATION
from atlas.tokens.sentencepiece import SentencePieceTokenizer
from atlas.tokens.tokenizer import Tokenizer

Array = npt.NDArray[Any]

CHUNK = 1 << 18  # values encoded at once: 1 MB of float32, which fits the processor's cache
CASTS = {
    GGMLQuantizationType.F32: torch.float32,
    GGMLQuantizationType.F16: torch.float16,
    GGMLQuantizationType.BF16: torch.bfloat16,
}


def write_gguf(
    path: Path, bundle: ModelBundle, architecture: Architecture, format_name: GgufFormat
) -> None:
    """Write a model in a format without K types, which only llama.cpp can write."""
    weights = StoredWeights(bundle.folder)
    recipes = dict(TensorConverter.for_gguf(bundle.config, weights.shapes, architecture).recipes())
    shapes = {name: tuple(recipe(weights.empty).shape) for name, recipe in recipes.items()}
    types = tensor_types(shapes, format_name)
    writer = GGUFWriter(path, architecture.name)
    writer.add_file_type(file_type(format_name))
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    add_general(writer, bundle.metadata, count(bundle.config).total_parameters)
    add_hyperparameters(writer, bundle.config, architecture)
    add_tokenizer(writer, bundle.tokenizer, add_bos_token=bundle.config.add_bos_token)
    writer.add_chat_template(without_tags(bundle.chat_template))
    for name, shape in shapes.items():
        size = math.prod(gguf.quant_shape_to_byte_shape(shape, types[name]))
        writer.add_tensor_info(name, shape, np.dtype(np.float32), size, types[name])
    try:
        with closing(writer):
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
        with path.open("ab") as file, ThreadPoolExecutor(threads()) as pool:
            writer.write_padding(file, file.tell())
            for name, recipe in tqdm(recipes.items(), path.name):
                size = 0
                for chunk in encode(recipe(weights.read), types[name], pool):
                    size += file.write(chunk.data)
                writer.write_padding(file, size)
    except OSError as error:
        reason = error.strerror or error  # NumPy gives no strerror for a short write
        raise AtlasError(f"{path}: not written ({reason}); free some space and run again") from None


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
    if base := metadata.base:
        writer.add_base_model_count(1)
        writer.add_base_model_name(0, base.name)
        if base.author:
            writer.add_base_model_author(0, base.author)
        if base.url:
            writer.add_base_model_repo_url(0, base.url)
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


def add_tokenizer(writer: GGUFWriter, tokenizer: Tokenizer, *, add_bos_token: bool) -> None:
    """Add the vocabulary and the roles of special tokens, with every flag that llama.cpp reads."""
    if isinstance(tokenizer, SentencePieceTokenizer):
        _add_sentencepiece(writer, tokenizer)
    elif isinstance(tokenizer, ByteLevelTokenizer):
        _add_byte_level(writer, tokenizer)
    eos = source_eos(tokenizer)
    writer.add_bos_token_id(tokenizer.bos)
    writer.add_eos_token_id(eos)
    # llama.cpp knows other end tokens by their names, and has keys for two more.
    others = (each for each in sorted(tokenizer.end_ids - {eos}))
    unknown = [each for each in others if tokenizer.piece(each) not in ENDS_OF_GENERATION]
    for add, end in zip((writer.add_eot_token_id, writer.add_eom_token_id), unknown, strict=False):
        add(end)
    if tokenizer.unk is not None:
        writer.add_unk_token_id(tokenizer.unk)
    writer.add_pad_token_id(tokenizer.pad)
    writer.add_add_bos_token(add_bos_token)
    writer.add_add_eos_token(False)
    if isinstance(tokenizer, SentencePieceTokenizer):
        normalizer = tokenizer.normalizer
        writer.add_add_space_prefix(normalizer.add_dummy_prefix)
        writer.add_remove_extra_whitespaces(normalizer.remove_extra_whitespaces)
        if normalizer.precompiled_charsmap:
            writer.add_precompiled_charsmap(normalizer.precompiled_charsmap)


def _add_byte_level(writer: GGUFWriter, tokenizer: ByteLevelTokenizer) -> None:
    """Add byte-level BPE: pieces spelled in letters, their types, and the merges in order."""
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(tokenizer.pre.name)
    keys, types = gguf.Keys.Tokenizer, gguf.GGUFValueType
    for key, kind, values in (
        (keys.LIST, types.STRING, [token.encode() for token in tokenizer.tokens()]),
        (keys.TOKEN_TYPE, types.INT32, [int(each) for each in tokenizer.token_types()]),
        (keys.MERGES, types.STRING, [pair.encode() for pair in tokenizer.merges()]),
    ):
        writer.add_key_value(key, values, types.ARRAY, kind)


def _add_sentencepiece(writer: GGUFWriter, tokenizer: SentencePieceTokenizer) -> None:
    """Add a sentencepiece model.

    llama.cpp's ``llama`` tokenizer merges by score, like sentencepiece's BPE; a character model is
    one without merges. Its ``t5`` tokenizer finds the best path, like a unigram model; in a
    vocabulary of words each word is one piece.
    """
    pieces = ModelProto.FromString(tokenizer.model).pieces
    writer.add_tokenizer_model("llama" if tokenizer.kind in ("bpe", "char") else "t5")
    writer.add_tokenizer_pre("default")
    keys, types = gguf.Keys.Tokenizer, gguf.GGUFValueType
    # sentencepiece numbers the types of pieces as GGUF does. A given kind saves checking each item.
    for key, kind, values in (
        (keys.LIST, types.STRING, [piece.piece.encode() for piece in pieces]),
        (keys.SCORES, types.FLOAT32, [piece.score for piece in pieces]),
        (keys.TOKEN_TYPE, types.INT32, [piece.type for piece in pieces]),
    ):
        writer.add_key_value(key, values, types.ARRAY, kind)


def encode(values: Tensor, kind: GGMLQuantizationType, pool: Executor) -> Iterator[Array]:
    """Convert a float32 tensor to a GGUF type; yield its chunks.

    PyTorch casts 20 times as fast as NumPy. gguf-py's own ``quantize`` takes 16 rows at a time,
    so that threads spend their time waiting for each other; its ``quantize_blocks`` does not.
    """
    if kind in CASTS:
        for chunk in torch.split(values.flatten(), CHUNK):
            yield chunk.to(CASTS[kind]).view(torch.uint8).numpy()
        return
    quantize_blocks = getattr(gguf.quants, kind.name).quantize_blocks
    blocks = values.numpy().reshape(-1, BLOCK_SIZE)
    step = CHUNK // BLOCK_SIZE
    chunks = (blocks[start : start + step] for start in range(0, len(blocks), step))
    yield from pool.map(quantize_blocks, chunks)
