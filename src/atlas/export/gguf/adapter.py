"""Write a LoRA adapter as a GGUF file, which llama.cpp adds to the model it was trained on.

For a matrix W (out, in), the file has A (rank, in) and B (out, rank); llama.cpp computes with::

    W + alpha / rank * B A

The matrices of llama.cpp are those of Atlas with other rows: reordered, multiplied, or those of
queries, keys and values stacked. So B gets the same rows as W, and A stays as it is.
"""

import json
import math
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGUFWriter
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from atlas.errors import AtlasError, one_line
from atlas.export.bundle import ModelBundle, StoredWeights
from atlas.export.check.agreement import LLAMA_CPP
from atlas.export.gguf.writer import write_gguf
from atlas.model.config import ModelConfig
from atlas.model.foreign.tensors import QKV, Shape, TensorConverter
from atlas.model.weights import WEIGHTS
from atlas.params.runtime_support import Architecture
from atlas.pipeline.files import sha256
from atlas.pipeline.gguf_file import Tensor as GGUFTensor
from atlas.pipeline.gguf_file import read_gguf

ADAPTER, ADAPTER_CONFIG = "adapter.safetensors", "adapter.json"
A, B, WEIGHT = ".lora_a", ".lora_b", ".weight"
TOLERANCE = 1e-5  # of the sum with the base, as a share of the largest weight of a matrix
TINY = 1e-30


@dataclass(frozen=True)
class Adapter:
    """The changes that LoRA training made, and the model that it changed."""

    matrices: Mapping[str, Tensor]  # by module: ``blocks.0.attention.query.lora_a`` ...
    alpha: float
    base: Path  # the folder that training started from
    base_sha256: str  # of its weights

    @classmethod
    def read(cls, folder: Path) -> "Adapter":
        """Read the adapter in a model's folder."""
        if not (folder / ADAPTER).is_file():
            raise AtlasError(
                f"gguf:adapter: {folder} has no adapter, because it was not trained with LoRA; set "
                "train.lora.rank, or export the whole model (gguf:q8_0)"
            )
        try:
            values = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
            matrices = load_file(folder / ADAPTER)
            return cls(matrices, values["alpha"], Path(values["base"]), values["base_sha256"])
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            name = ADAPTER if isinstance(error, SafetensorError) else ADAPTER_CONFIG
            raise AtlasError(
                f"{folder / name}: not an adapter of this version ({one_line(error)[:120]}); "
                "`dvc repro -f train` recreates it"
            ) from None

    def check_base(self) -> None:
        """Check that the base is still there, with the same weights."""
        weights = self.base / WEIGHTS
        if not weights.is_file():
            raise AtlasError(
                f"{weights}: no such file, and gguf:adapter is checked on these weights, which "
                "training started from; put them back, or export from the folder that has them"
            )
        if sha256(weights) != self.base_sha256:
            raise AtlasError(
                f"{weights}: changed since training started from it, so the adapter no longer "
                "fits; `dvc repro` trains again"
            )


def export_adapter(
    path: Path, bundle: ModelBundle, architecture: Architecture, exact: Path
) -> tuple[int, float]:
    """Write a model's adapter, and check it against the model's F32 file ``exact``.

    Return the largest rank, and the largest difference as a share of a matrix's largest weight.
    """
    adapter = Adapter.read(bundle.folder)
    adapter.check_base()
    rank = write_adapter(path, bundle, adapter, architecture)
    with tempfile.TemporaryDirectory(dir=path.parent) as name:
        base = Path(name) / "base.gguf"
        write_gguf(base, replace(bundle, folder=adapter.base), architecture, "f32")
        request = {"adapter": str(path.resolve()), "context_length": bundle.config.context_length}
        LLAMA_CPP.ask(request, Path(name), file=base)
        return rank, check_sum(path, base, exact)


def write_adapter(
    path: Path, bundle: ModelBundle, adapter: Adapter, architecture: Architecture
) -> int:
    """Write an adapter as a GGUF file; return the largest rank."""
    shapes = StoredWeights(bundle.folder).shapes
    writer = GGUFWriter(path, architecture.name)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_name(f"{bundle.metadata.name}-adapter")
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, adapter.alpha)
    rank = 0
    for name, a, b in runtime_matrices(adapter.matrices, bundle.config, shapes, architecture):
        writer.add_tensor(f"{name}.lora_a", a.numpy())
        writer.add_tensor(f"{name}.lora_b", b.numpy())
        rank = max(rank, len(a))
    with closing(writer):
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    return rank


def runtime_matrices(
    matrices: Mapping[str, Tensor],
    config: ModelConfig,
    shapes: Mapping[str, Shape],
    architecture: Architecture,
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield A and B under the name of llama.cpp's matrix.

    Queries, keys and values that are one matrix have their A one below the other, and their B on
    the diagonal. llama.cpp divides by the larger rank, so B is multiplied by its ratio.
    """
    changed = {name.removesuffix(A) for name in matrices if name.endswith(A)}
    groups: dict[str, tuple[str, ...]] = {module: (module,) for module in changed}
    if architecture.fused_qkv:
        for number in range(config.n_layer):
            fused = tuple(f"blocks.{number}.{part}" for part in QKV)
            if changed & set(fused):
                groups |= dict.fromkeys(fused, fused)
    wide: dict[str, Tensor] = {}  # B of each module, with columns for the A of its whole group
    stacked: dict[str, Tensor] = {}  # these A
    for module, group in groups.items():
        there = [each for each in group if each in changed]
        stacked[module] = torch.cat([matrices[each + A] for each in there])
        first, total = 0, len(stacked[module])
        wide[module] = torch.zeros(shapes[module + WEIGHT][0], total)
        for each in there:
            rank = len(matrices[each + A])
            if each == module:
                wide[module][:, first : first + rank] = total / rank * matrices[each + B]
            first += rank
    wide_shapes = {module + WEIGHT: tuple(b.shape) for module, b in wide.items()}
    for name, recipe in TensorConverter.for_gguf(config, wide_shapes, architecture).recipes():
        read: list[str] = []

        def take(weight: str, read: list[str] = read) -> Tensor:
            read.append(weight.removesuffix(WEIGHT))
            return wide.get(read[-1], torch.empty(0))

        b = recipe(take)
        if read and read[0] in stacked:
            yield name, stacked[read[0]].contiguous(), b.contiguous()


def _values(path: Path, tensor: GGUFTensor) -> Tensor:
    """Read a float32 tensor of a file."""
    count = math.prod(tensor.shape)
    values = np.fromfile(path, np.float32, count, offset=tensor.offset)
    return torch.from_numpy(values).reshape(tensor.shape[::-1])


def check_sum(path: Path, base: Path, exact: Path) -> float:
    """Check that base and adapter add up to the F32 file; return the largest difference."""
    adapter = read_gguf(path)
    changes = {each.name: each for each in adapter.tensors}
    alpha = adapter.get(gguf.Keys.Adapter.LORA_ALPHA)
    whole = {each.name: each for each in read_gguf(exact).tensors}
    largest = 0.0
    for tensor in read_gguf(base).tensors:
        ours, theirs = _values(base, tensor), _values(exact, whole[tensor.name])
        if f"{tensor.name}.lora_a" in changes:
            a, b = (_values(path, changes[tensor.name + part]) for part in (A, B))
            ours = torch.addmm(ours, b, a, alpha=alpha / len(a))
        difference = float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=TINY))
        largest = max(largest, difference)
        if not difference <= TOLERANCE:  # NaN fails too
            raise AtlasError(
                f"{path}: added to the base, {tensor.name} differs from the model by "
                f"{difference:.2g} of its largest weight, allowed {TOLERANCE:g}; not exported"
            )
    return largest
