r"""LoRA: train a small change of given matrices (Hu et al. 2021, arXiv:2106.09685).

A linear layer keeps its weight W (out, in) and learns A (rank, in) and B (out, rank)::

    y = x W' + alpha / rank * (x A') B'

B starts at 0, and so the model starts as it was. After training, W + alpha / rank * B A is a matrix
like any other, which costs nothing more to run. The product has at most the given rank: 8 for a
matrix of 576 x 576 trains 9,216 numbers instead of 331,776.
"""

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from atlas.model.weights import write_weights
from atlas.params.schema import LoraParams
from atlas.params.start import WEIGHTS
from atlas.pipeline.files import sha256, write_json

A, B = ".lora_a", ".lora_b"  # ends of their names; .weight is the matrix that they change
ADAPTER, ADAPTER_CONFIG = "adapter.safetensors", "adapter.json"


class LoraLinear(nn.Linear):
    """A linear layer whose weight is frozen, with a trained change of it.

    Weight and bias keep their names, so the frozen part loads and saves like any model.
    """

    def __init__(self, linear: nn.Linear, rank: int, scale: float) -> None:
        has_bias = linear.bias is not None
        super().__init__(linear.in_features, linear.out_features, has_bias, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        self.scale = scale
        self.lora_a = nn.Parameter(linear.weight.new_empty(rank, linear.in_features))
        self.lora_b = nn.Parameter(linear.weight.new_zeros(linear.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in) to (..., out)."""
        low = F.linear(x, self.lora_a) * self.scale  # (..., rank)
        # A copy of B in the order of memory of its transpose makes PyTorch compute its gradient as
        # (rank, tokens) x (tokens, out), 3 to 6 times as fast as the other way round.
        return super().forward(x) + low @ self.lora_b.t().contiguous()


def add_lora(model: nn.Module, lora: LoraParams, seed: int) -> None:
    """Freeze a model, and give the linear layers in ``lora.targets`` a change to train.

    A is drawn as in peft, uniformly within 1 / sqrt(in), by the seed. Without a rank, the model
    stays as it is.
    """
    if lora.rank is None:
        return
    generator = torch.Generator().manual_seed(seed)
    model.requires_grad_(False)
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in lora.targets:
            changed = LoraLinear(module, lora.rank, lora.alpha / lora.rank)
            nn.init.kaiming_uniform_(changed.lora_a, a=math.sqrt(5), generator=generator)
            model.set_submodule(name, changed)


def merge(weights: dict[str, Tensor], lora: LoraParams) -> dict[str, Tensor]:
    """Add each A and B to the matrix that they change; other weights stay as they are.

    The best A and B were read from a file, the matrix may be on a GPU.
    """
    merged = {name: weight for name, weight in weights.items() if not name.endswith((A, B))}
    for name in (name for name in weights if name.endswith(A)):
        layer = name.removesuffix(A)
        matrix, scale = weights[f"{layer}.weight"], lora.alpha / weights[name].shape[0]
        a, b = (weights[layer + end].to(matrix.device) for end in (A, B))
        merged[f"{layer}.weight"] = torch.addmm(matrix, b, a, alpha=scale)
    return merged


def write_adapter(folder: Path, weights: dict[str, Tensor], lora: LoraParams, start: Path) -> None:
    """Write A and B of each layer, and what they change: the weights in the folder ``start``."""
    changes = {name: weight for name, weight in weights.items() if name.endswith((A, B))}
    write_weights(changes, folder / ADAPTER)
    values = lora.model_dump(mode="json")
    base = {"base": str(start), "base_sha256": sha256(start / WEIGHTS)}
    write_json(folder / ADAPTER_CONFIG, values | base)
