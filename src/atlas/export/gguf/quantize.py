"""Quantized formats: the type of each tensor, and llama.cpp's own quantizer.

Norms, biases and position tables stay F32. In formats of four and five bits, the matrix that
computes the logits (the head, or the embedding it is tied to) has a finer type, because it matters
most. These are llama.cpp's own choices.

llama.cpp quantizes in a process of its own::

    python -m atlas.export.gguf.quantize SOURCE TARGET FILE_TYPE

where FILE_TYPE is llama.cpp's numeric id of a format.
"""

import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from gguf import GGMLQuantizationType, LlamaFileType

from atlas.export.check.runtimes import RuntimeProcess
from atlas.params.runtime_support import K_BLOCK_SIZE, GgufFormat, has_k_types
from atlas.pipeline.gguf_file import read_gguf
from atlas.pipeline.processes import loading_llama_cpp, threads

QUANTIZER = RuntimeProcess("llama.cpp", "atlas.export.gguf.quantize")
EMBEDDING, HEAD, POSITIONS = "token_embd.weight", "output.weight", "position_embd.weight"
FINER_HEAD = ("q5_1", "q5_0", "q4_1", "q4_0")


def file_type(name: GgufFormat) -> LlamaFileType:
    """llama.cpp's numeric id of a format."""
    return LlamaFileType[f"{'ALL' if name == 'f32' else 'MOSTLY'}_{name.upper()}"]


def needs_llama_cpp(name: GgufFormat, d_model: int) -> bool:
    """Return True if the file would have K types, which only llama.cpp's quantizer writes."""
    return has_k_types(name) or (name in FINER_HEAD and d_model % K_BLOCK_SIZE == 0)


def may_shrink(name: str, dimensions: int) -> bool:
    """Return True for matrices that may have a smaller type, unlike positions, norms and biases."""
    return dimensions == 2 and name != POSITIONS


def tensor_types(
    shapes: Mapping[str, tuple[int, ...]], name: GgufFormat
) -> dict[str, GGMLQuantizationType]:
    """Choose the type of each tensor, by llama.cpp's name, in a format without K types."""
    usual = GGMLQuantizationType[name.upper()]
    types = {
        key: usual if may_shrink(key, len(shape)) else GGMLQuantizationType.F32
        for key, shape in shapes.items()
    }
    if name in FINER_HEAD:
        types[HEAD if HEAD in types else EMBEDDING] = GGMLQuantizationType.Q8_0
    return types


def quantize(source: Path, target: Path, name: GgufFormat) -> None:
    """Let llama.cpp convert a file to another format."""
    number = str(int(file_type(name)))
    QUANTIZER.run(str(source), str(target), number, file=target)


def matrix_types(file: Path) -> Counter[str]:
    """Count the matrices of a GGUF file by type, in lower case."""
    return Counter(
        tensor.kind.name.lower()
        for tensor in read_gguf(file).tensors
        if may_shrink(tensor.name, len(tensor.shape))
    )


def main() -> None:
    """Run llama.cpp's quantizer in this process."""
    with loading_llama_cpp():
        from cyllama.llama import llama_cpp

    source, target, number = sys.argv[1:]
    llama_cpp.disable_logging()
    params = llama_cpp.LlamaModelQuantizeParams()
    params.ftype = int(number)
    params.nthread = threads()
    params.allow_requantize = True  # to F32, when import checks a quantized file
    llama_cpp.model_quantize(source, target, params)


if __name__ == "__main__":
    main()
