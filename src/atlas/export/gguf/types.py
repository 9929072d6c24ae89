"""In which type each matrix of a GGUF file is: llama.cpp's own choice, format by format.

Norms, biases and tables of positions stay F32. In the formats of four and five bits the matrix
that makes the logits has more, as it matters most: the head, or the embedding it is tied to.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from gguf import GGMLQuantizationType, GGUFReader, LlamaFileType

from atlas.export.gguf.tensors import EMBEDDING, HEAD, GgufTensor, may_shrink
from atlas.export.runtime_process import RuntimeModule
from atlas.params.runtime_support import K_ROW, GgufFormat, has_k_types

QUANTISER = RuntimeModule("llama.cpp", "atlas.export.gguf.quantiser")
FINER_HEAD = ("q5_1", "q5_0", "q4_1", "q4_0")


def file_type(name: GgufFormat) -> LlamaFileType:
    """llama.cpp's number of a format."""
    return LlamaFileType[f"{'ALL' if name == 'f32' else 'MOSTLY'}_{name.upper()}"]


def needs_llama_cpp(name: GgufFormat, width: int) -> bool:
    """Whether a file has K types, which llama.cpp's own quantiser alone can write.

    Args:
        name: the format.
        width: of a row of the head, d_model.
    """
    return has_k_types(name) or (name in FINER_HEAD and width % K_ROW == 0)


def types_of(tensors: Sequence[GgufTensor], name: GgufFormat) -> list[GGMLQuantizationType]:
    """The type of each tensor, in a format that needs no K types."""
    usual = GGMLQuantizationType[name.upper()]
    of_head = GGMLQuantizationType.Q8_0 if name in FINER_HEAD else usual
    head = HEAD if any(tensor.name == HEAD for tensor in tensors) else EMBEDDING
    return [
        (of_head if tensor.name == head else usual)
        if may_shrink(tensor.name, len(tensor.shape))
        else GGMLQuantizationType.F32
        for tensor in tensors
    ]


def quantise(source: Path, target: Path, name: GgufFormat) -> None:
    """Has llama.cpp write an F32 file anew in another format.

    Raises:
        AtlasError: it failed.
    """
    number = str(int(file_type(name)))
    QUANTISER.run(str(source), str(target), number, file=target)


def matrix_types(file: Path) -> Counter[str]:
    """How many matrices of a GGUF file are in each type, by its name in small letters."""
    types = (
        tensor.tensor_type.name.lower()
        for tensor in GGUFReader(file).tensors
        if may_shrink(tensor.name, len(tensor.shape))
    )
    return Counter(types)
