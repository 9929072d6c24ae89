"""Writes a decoder as programs, in a process of its own.

    python -m atlas.export.programs.writer MODEL TARGET [TARGET]

MODEL is a folder that train wrote; a TARGET that ends in .onnx becomes an ONNX file, one that ends
in .pt2 a program of torch.export.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule

from atlas.export.programs.cached_decoder import (
    ALL,
    BATCH,
    NEW,
    PAST,
    input_names,
    output_names,
    trace,
)
from atlas.model.config import ModelConfig
from atlas.model.decoder import Decoder
from atlas.model.storage import load_model


def main() -> None:
    """Traces the model once and writes it in each form."""
    folder, *targets = map(Path, sys.argv[1:])
    model = load_model(folder, torch.device("cpu"))
    if not isinstance(model, Decoder):
        raise TypeError(f"{folder}: not a decoder")
    program = without_traces(trace(model))
    for target in targets:
        if target.suffix == ".onnx":
            write_onnx(program, model.config, target)
        else:
            torch.export.save(program, target)


def without_traces(program: ExportedProgram) -> ExportedProgram:
    """The program without the lines of code that it came from, which have the machine's paths."""
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, GraphModule) else ():
            node.meta.pop("stack_trace", None)
    return program


def write_onnx(program: ExportedProgram, config: ModelConfig, path: Path) -> None:
    """Writes an ONNX file; weights of more than 2 GB go to a file beside it."""
    onnx = torch.onnx.export(
        program,
        input_names=input_names(config),
        output_names=output_names(config),
        verbose=False,
    )
    if onnx is None:
        raise RuntimeError("torch.onnx.export gave no program")
    graph: Any = onnx.model.graph
    ids, mask, past, *_ = (value.shape for value in graph.inputs)
    names = {str(ids[0]): BATCH, str(ids[1]): NEW, str(mask[1]): ALL, str(past[2]): PAST}
    for shape in (value.shape for value in (*graph.inputs, *graph.outputs)):
        for axis, size in enumerate(shape):
            if not isinstance(size, int):
                shape[axis] = " + ".join(names[part] for part in str(size).split(" + "))
    onnx.save(path)


if __name__ == "__main__":
    main()
