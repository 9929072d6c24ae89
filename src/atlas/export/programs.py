"""Write a decoder as a program: an ONNX file, or a program of torch.export.

The program takes the keys and values of past tokens as inputs and returns those of all tokens, so
it has no state. Names and shapes are those of transformers' ONNX exports, which other tools know.
Legend: B batch, P past tokens, T new tokens, K key heads, D head size, V vocabulary.

The exporters print a lot, so they run in a process of their own::

    python -m atlas.export.programs MODEL TARGET [TARGET]

MODEL is a model folder. A TARGET ending in .onnx becomes an ONNX file, one in .pt2 a program of
torch.export.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule

from atlas.export.check.runtimes import RuntimeProcess
from atlas.model.attention import KVCache, LayerCache
from atlas.model.config import ModelConfig
from atlas.model.masks import AttentionMask
from atlas.model.transformer import Decoder
from atlas.model.weights import load_model

WRITER = RuntimeProcess("torch.export", "atlas.export.programs")
BATCH, NEW, ALL, PAST = "batch", "new", "all", "past"  # names of B, T, P + T and P


def write_programs(model: Path, targets: Sequence[Path]) -> None:
    """Write a model folder to each target, in another process."""
    WRITER.run(str(model), *map(str, targets), file=targets[0])


class InputLayer(LayerCache):
    """Keys and values of one block that are inputs of the program, (B, K, P, D) each."""

    def extend(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Append the keys and values of new tokens, (B, K, T, D); return all."""
        self.keys = torch.cat((self.keys, key), dim=2)
        self.values = torch.cat((self.values, value), dim=2)
        return self.keys, self.values


class InputCache(KVCache):
    """A cache whose contents are inputs of the program.

    The mask is False where a past or new token is padding, (B, P + T).
    """

    def __init__(self, layers: list[LayerCache], mask: Tensor) -> None:
        self.layers, self.mask = layers, mask

    @property
    def longest(self) -> int:
        """Number of past tokens, P."""
        return self.layers[0].keys.shape[2]

    def reserve(self, ids: Tensor, mask: Tensor | None) -> AttentionMask:  # noqa: ARG002
        """Return the mask of the new tokens, over past and new ones."""
        return AttentionMask.from_padding(self.mask, past=self.longest)


class CachedDecoder(nn.Module):
    """A decoder as a pure function, with keys and values as inputs and outputs."""

    def __init__(self, model: Decoder) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, past_key_values: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        """Return logits (B, T, V), then the keys and values of each block, (B, K, P + T, D).

        The inputs are the new tokens (B, T), a mask of all tokens with 0 for padding (B, P + T),
        and keys, then values, of each block in turn (B, K, P, D).
        """
        pairs = zip(past_key_values[::2], past_key_values[1::2], strict=True)
        layers: list[LayerCache] = [InputLayer(key, value) for key, value in pairs]
        logits = self.model(input_ids, cache=InputCache(layers, attention_mask.bool()))
        present = [each for layer in layers for each in (layer.keys, layer.values)]
        return logits, *present


def cache_names(prefix: str, config: ModelConfig) -> list[str]:
    """Names of the keys and values of each block, in order."""
    return [f"{prefix}.{i}.{part}" for i in range(config.n_layer) for part in ("key", "value")]


def input_names(config: ModelConfig) -> list[str]:
    """Names of the inputs, in order."""
    return ["input_ids", "attention_mask", *cache_names("past_key_values", config)]


def empty_past(config: ModelConfig, batch: int = 1, length: int = 0) -> list[Tensor]:
    """Keys and values of ``length`` past tokens, all zero."""
    shape = (batch, config.n_kv_head, length, config.head_size)
    return [torch.zeros(shape) for _ in range(2 * config.n_layer)]


def trace(model: Decoder) -> ExportedProgram:
    """Trace a decoder for any batch size, past length and number of new tokens."""
    from torch.fx.experimental import _config

    config, length = model.config, model.config.context_length
    batch, past, new = (min(size, length // 2) for size in (2, 3, 4))
    example: tuple[Any, ...] = (
        torch.zeros(batch, new, dtype=torch.int64),
        torch.ones(batch, past + new, dtype=torch.int64),
        empty_past(config, batch, past),
    )
    rows = Dim(BATCH, min=1)
    shapes = (
        {0: rows, 1: Dim(NEW, min=1, max=length)},
        {0: rows, 1: Dim(ALL, min=1, max=length)},
        [{0: rows, 2: Dim(PAST, min=0, max=length - 1)} for _ in example[2]],
    )
    # Otherwise torch.export assumes that no dimension is ever 0 or 1. PyTorch's ONNX exporter sets
    # the same option; it has no public name in PyTorch 2.13.
    with _config.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
        return torch.export.export(
            CachedDecoder(model).eval(),
            example,
            dynamic_shapes=shapes,
            prefer_deferred_runtime_asserts_over_guards=True,
        )


def write_onnx(program: ExportedProgram, config: ModelConfig, path: Path) -> None:
    """Write an ONNX file; weights of more than 2 GB go to a second file."""
    onnx = torch.onnx.export(
        program,
        input_names=input_names(config),
        output_names=["logits", *cache_names("present", config)],
        verbose=False,
    )
    if onnx is None:
        raise RuntimeError("torch.onnx.export returned no program")
    graph: Any = onnx.model.graph
    ids, mask, past, *_ = (value.shape for value in graph.inputs)
    names = {str(ids[0]): BATCH, str(ids[1]): NEW, str(mask[1]): ALL, str(past[2]): PAST}
    for shape in (value.shape for value in (*graph.inputs, *graph.outputs)):
        for axis, size in enumerate(shape):
            if not isinstance(size, int):
                shape[axis] = " + ".join(names[part] for part in str(size).split(" + "))
    onnx.save(path)


def main() -> None:
    """Trace the model once and write it to each target."""
    folder, *targets = map(Path, sys.argv[1:])
    model = load_model(folder, torch.device("cpu"))
    if not isinstance(model, Decoder):
        raise TypeError(f"{folder}: not a decoder")
    program = trace(model)
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, GraphModule) else ():
            node.meta.pop("stack_trace", None)  # it contains local paths
    for target in targets:
        if target.suffix == ".onnx":
            write_onnx(program, model.config, target)
        else:
            torch.export.save(program, target)


if __name__ == "__main__":
    main()
