"""What llama.cpp makes of a GGUF file, computed in a process of its own (see ``runtime``).

python -m atlas.export.check.llama_runtime FOLDER
"""

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
from cyllama.llama import llama_cpp

from atlas.export.check.runtime import Runtime, answer
from atlas.inference.backends.gguf_model import LlamaModel
from atlas.pipeline.processes import threads

GGML_TYPE_F32 = 0
FLASH_ATTENTION_OFF = 0


class LlamaRuntime(Runtime):
    """A GGUF file loaded in llama.cpp, everything that may be exact set to exact."""

    def __init__(self, path: str, context_length: int) -> None:
        llama_cpp.disable_logging()
        self.model = LlamaModel(path)
        self.vocabulary = self.model.get_vocab()
        params = llama_cpp.LlamaContextParams()
        params.n_ctx = params.n_batch = params.n_ubatch = context_length
        params.type_k = params.type_v = GGML_TYPE_F32
        params.flash_attn_type = FLASH_ATTENTION_OFF
        self.context = llama_cpp.LlamaContext(self.model, params)
        self.context.set_n_threads(threads(), threads())
        self.context_length = context_length

    def tokenize(self, text: str) -> list[int]:
        """The ids of a text, special ones neither added nor read."""
        ids: list[int] = self.vocabulary.tokenize(text, add_special=False, parse_special=False)
        return ids

    def logits(self, ids: list[int], position: int) -> npt.NDArray[np.float32]:
        """Logits (T, V) after each of ``ids`` (T), the first of which is at ``position``."""
        if position == 0:
            self.context.kv_cache_clear()
        batch = llama_cpp.LlamaBatch(n_tokens=len(ids), embd=0, n_seq_max=1)
        for offset, identity in enumerate(ids):
            batch.add(identity, position + offset, [0], True)
        self.context.decode(batch)
        rows = np.empty((len(ids), self.model.n_vocab), np.float32)
        for offset in range(len(ids)):
            rows[offset] = self.context.get_logits_ith(offset)
        return rows


if __name__ == "__main__":
    answer(Path(sys.argv[1]), LlamaRuntime)
