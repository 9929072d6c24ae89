"""Write a model as a GGUF file, one tensor in memory at a time.

gguf-py writes the file. Its names, shapes and sizes come first, so all of them are announced before
the first tensor is read.
"""

from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import torch
from gguf import GGMLQuantizationType, GGUFWriter
from torch import Tensor
from tqdm import tqdm

from atlas.errors import AtlasError
from atlas.export.bundle import ModelBundle
from atlas.export.gguf.metadata import add_general, add_hyperparameters, add_tokenizer
from atlas.export.gguf.quantize import file_type, tensor_types
from atlas.export.gguf.tensors import GgufConverter
from atlas.params.runtime_support import BLOCK_SIZE, Architecture, GgufFormat
from atlas.pipeline.processes import threads

Array = npt.NDArray[Any]

CHUNK = 1 << 18  # values quantized at once: 1 MB of float32, which fits the processor's cache
CASTS = {
    GGMLQuantizationType.F32: torch.float32,
    GGMLQuantizationType.F16: torch.float16,
    GGMLQuantizationType.BF16: torch.bfloat16,
}


def write_gguf(
    path: Path, bundle: ModelBundle, architecture: Architecture, format_name: GgufFormat
) -> None:
    """Write a model with its tokenizer and metadata.

    Args:
        path: file to write.
        bundle: the model.
        architecture: llama.cpp's architecture for it.
        format_name: a format without K types, which only llama.cpp can write.

    Raises:
        AtlasError: the disk is full or the file cannot be written.
    """
    weights = bundle.weights
    tensors = list(GgufConverter(bundle.config, architecture, weights).tensors())
    types = tensor_types({tensor.name: tensor.shape for tensor in tensors}, format_name)
    writer = GGUFWriter(path, architecture.name)
    writer.add_file_type(file_type(format_name))
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    add_general(writer, bundle.metadata, weights.parameter_count())
    add_hyperparameters(writer, bundle.config, architecture)
    add_tokenizer(writer, bundle.tokenizer, add_bos_token=bundle.config.add_bos_token)
    for tensor in tensors:
        kind = types[tensor.name]
        size = byte_size(tensor.shape, kind)
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), size, kind)
    try:
        with closing(writer), ThreadPoolExecutor(threads()) as pool:
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            for tensor in tqdm(tensors, path.name):
                writer.write_tensor_data(encode(tensor.read(), types[tensor.name], pool))
    except OSError as error:
        reason = error.strerror or error  # NumPy gives no strerror for a short write
        raise AtlasError(f"{path}: not written ({reason}); free some space and run again") from None


def byte_size(shape: tuple[int, ...], kind: GGMLQuantizationType) -> int:
    """Size of a tensor in the file."""
    block, bytes_per_block = gguf.GGML_QUANT_SIZES[kind]
    return int(np.prod(shape)) // block * bytes_per_block


def encode(values: Tensor, kind: GGMLQuantizationType, pool: Executor) -> Array:
    """Convert a contiguous float32 tensor to a GGUF type, chunk by chunk in threads.

    PyTorch casts 20 times as fast as NumPy. gguf-py's own ``quantize`` takes 16 rows at a time,
    so that threads spend their time waiting for each other; its ``quantize_blocks`` does not.
    """
    if kind in CASTS:
        cast = values.to(CASTS[kind])
        return (cast.view(torch.uint16) if cast.dtype == torch.bfloat16 else cast).numpy()
    quantize_blocks = getattr(gguf.quants, kind.name).quantize_blocks
    blocks = values.numpy().reshape(-1, BLOCK_SIZE)
    encoded = np.empty((len(blocks), gguf.GGML_QUANT_SIZES[kind][1]), np.uint8)
    step = CHUNK // BLOCK_SIZE

    def quantize(start: int) -> None:
        encoded[start : start + step] = quantize_blocks(blocks[start : start + step])

    list(pool.map(quantize, range(0, len(blocks), step)))
    return encoded
