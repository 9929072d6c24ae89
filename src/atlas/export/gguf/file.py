"""Writes a model as a GGUF file, a few rows in memory at a time."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import gguf
import numpy as np
import numpy.typing as npt
import torch
from gguf import GGMLQuantizationType
from tqdm import tqdm

from atlas.errors import AtlasError
from atlas.export.gguf.metadata import add_about, add_shape
from atlas.export.gguf.quick_writer import QuickWriter
from atlas.export.gguf.tensors import GgufTensor, Translation
from atlas.export.gguf.tokenizer import add_tokenizer
from atlas.export.gguf.types import file_type, types_of
from atlas.export.source import Source
from atlas.export.weights import Array, ReadPart, StoredWeights
from atlas.params.runtime_support import ROW, Architecture, GgufFormat
from atlas.pipeline.processes import threads

AHEAD = 8  # parts of a tensor that are made while one is written
KINDS = {GGMLQuantizationType.F16: torch.float16, GGMLQuantizationType.BF16: torch.bfloat16}
BLOCKS: dict[GGMLQuantizationType, Any] = {
    GGMLQuantizationType.Q8_0: gguf.quants.Q8_0,
    GGMLQuantizationType.Q5_1: gguf.quants.Q5_1,
    GGMLQuantizationType.Q5_0: gguf.quants.Q5_0,
    GGMLQuantizationType.Q4_1: gguf.quants.Q4_1,
    GGMLQuantizationType.Q4_0: gguf.quants.Q4_0,
}


def write_gguf(
    path: Path, source: Source, architecture: Architecture, format_name: GgufFormat
) -> None:
    """Writes a model with its tokenizer.

    Args:
        path: the file to write.
        source: the model.
        architecture: llama.cpp's, to write it as.
        format_name: one that needs no K types.

    Raises:
        AtlasError: the disk does not take it.
    """
    weights = StoredWeights(source.folder)
    tensors = list(Translation(source.config, architecture, weights).tensors())
    types = types_of(tensors, format_name)
    writer = QuickWriter(path, architecture.name)
    writer.add_file_type(file_type(format_name))
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    add_about(writer, source.about, weights.parameter_count())
    add_shape(writer, source.config, architecture)
    add_tokenizer(writer, source.tokenizer, add_bos_token=source.config.add_bos_token)
    for tensor, kind in zip(tensors, types, strict=True):
        size = bytes_of(tensor, kind)
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), size, kind)
    try:
        with closing(writer), workers_of_one_thread() as workers:
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            for tensor, kind in tqdm(list(zip(tensors, types, strict=True)), path.name):
                stream = TensorStream(tensor, kind, workers)
                writer.write_tensor_data(stream)  # type: ignore[arg-type]
    except OSError as error:
        raise AtlasError(
            f"{path}: not written ({error.strerror}); free some space and run again"
        ) from None


@dataclass(frozen=True)
class TensorStream:
    """A tensor in the type that a file has it in.

    It has as much of a NumPy array as gguf-py asks for when it writes one, and is never whole.

    Attributes:
        tensor: to be written.
        kind: the type.
        workers: read and encode its parts while those before them are written.
    """

    tensor: GgufTensor
    kind: GGMLQuantizationType
    workers: Executor

    @property
    def nbytes(self) -> int:
        """Its size in the file."""
        return bytes_of(self.tensor, self.kind)

    def tofile(self, file: BinaryIO) -> None:
        """Writes it, part by part."""
        waiting: deque[Future[npt.NDArray[Any]]] = deque()
        for read in self.tensor.parts():
            waiting.append(self.workers.submit(self._encoded, read))
            if len(waiting) > AHEAD:
                file.write(waiting.popleft().result().data)
        for part in waiting:
            file.write(part.result().data)

    def _encoded(self, read: ReadPart) -> npt.NDArray[Any]:
        return encode(read(), self.kind)


def bytes_of(tensor: GgufTensor, kind: GGMLQuantizationType) -> int:
    """The size of a tensor in a file."""
    block, bytes_per_block = gguf.GGML_QUANT_SIZES[kind]
    return int(np.prod(tensor.shape)) // block * bytes_per_block


def encode(values: Array, kind: GGMLQuantizationType) -> npt.NDArray[Any]:
    """Rows of float32 in a type of GGUF, in memory of their own.

    gguf-py's own way to more than a block takes 16 rows at a time, which lets threads wait for each
    other.
    """
    encoded: npt.NDArray[Any]
    if kind in BLOCKS:
        encoded = BLOCKS[kind].quantize_blocks(values.reshape(-1, ROW))
    elif kind in KINDS:  # PyTorch's cast is 20 times as fast as NumPy's
        encoded = torch.from_numpy(values).to(KINDS[kind]).view(torch.uint16).numpy()
    else:
        encoded = values.copy()
    return encoded


@contextmanager
def workers_of_one_thread() -> Iterator[Executor]:
    """Threads in which PyTorch starts no others."""
    before = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(threads(), initializer=partial(torch.set_num_threads, 1)) as pool:
            yield pool
    finally:
        torch.set_num_threads(before)
