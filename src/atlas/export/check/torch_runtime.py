"""What PyTorch makes of a program of torch.export, in a process of its own (see ``runtime``).

    python -m atlas.export.check.torch_runtime FOLDER

None of our own model's code is loaded.
"""

import sys
from pathlib import Path

import torch

from atlas.export.check.program_runtime import Array, ProgramRuntime
from atlas.export.check.runtime import answer


class TorchRuntime(ProgramRuntime):
    """A loaded program."""

    def __init__(self, path: str, _context_length: int) -> None:
        program = torch.export.load(path)
        self.module = program.module()
        (_, _, past), _ = program.example_inputs
        self.shapes = [tuple(each.shape) for each in past]

    @torch.no_grad()
    def run(self, ids: Array, mask: Array, past: list[Array]) -> list[Array]:
        """Logits, and the keys and values of all tokens."""
        given = [torch.from_numpy(each) for each in past]
        outputs = self.module(torch.from_numpy(ids), torch.from_numpy(mask), given)
        return [each.numpy() for each in outputs]


if __name__ == "__main__":
    answer(Path(sys.argv[1]), TorchRuntime)
