"""Has a decoder written as programs."""

from collections.abc import Sequence
from pathlib import Path

from atlas.export.runtime_process import RuntimeModule

WRITER = RuntimeModule("torch.export", "atlas.export.programs.writer")


def write_programs(model: Path, targets: Sequence[Path]) -> None:
    """Writes a program to each target: ONNX where it ends in .onnx, torch.export in .pt2.

    It takes a process of its own, as the exporters fill the output with remarks on themselves.

    Raises:
        AtlasError: it failed.
    """
    WRITER.run(str(model), *map(str, targets), file=targets[0])
