"""What onnxruntime makes of an ONNX file, in a process of its own (see ``runtime``).

python -m atlas.export.check.onnx_runtime FOLDER
"""

import sys
from pathlib import Path

from onnxruntime import InferenceSession, SessionOptions

from atlas.export.check.program_runtime import Array, ProgramRuntime
from atlas.export.check.runtime import answer
from atlas.pipeline.processes import threads


class OnnxRuntime(ProgramRuntime):
    """A session on the CPU."""

    def __init__(self, path: str, _context_length: int) -> None:
        options = SessionOptions()
        options.intra_op_num_threads = threads()
        self.session = InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.names = [each.name for each in self.session.get_inputs()]
        self.shapes = [tuple(each.shape) for each in self.session.get_inputs()[2:]]

    def run(self, ids: Array, mask: Array, past: list[Array]) -> list[Array]:
        """Logits, and the keys and values of all tokens."""
        inputs = dict(zip(self.names, (ids, mask, *past), strict=True))
        outputs: list[Array] = self.session.run(None, inputs)
        return outputs


if __name__ == "__main__":
    answer(Path(sys.argv[1]), OnnxRuntime)
