"""What llama.cpp makes of a GGUF file, computed in a process of its own.

    python -m atlas.export.check.llama_runtime FOLDER

A failed assertion in ggml ends the process, so nothing else may live in it. FOLDER holds
``request.json``: the GGUF file ``model``, ``texts`` to tokenize, ``sequences`` of ids to give
logits for, ``prompts`` (ids) to continue greedily by ``greedy_tokens``. The answer goes to
``answer.json`` (``texts`` as ids, ``continuations`` as ids) and ``logits-N.npy``, (T, V).
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from cyllama.llama import llama_cpp

from atlas.export.llama_process import threads

GGML_TYPE_F32 = 0
FLASH_ATTENTION_OFF = 0


class Model(llama_cpp.LlamaModel):  # type: ignore[misc]
    """cyllama 0.2.18 asks the model for ``n_vocab`` when it copies logits, and has none."""

    @property
    def n_vocab(self) -> int:
        """V, the number of tokens."""
        size: int = self.get_vocab().n_vocab
        return size


class Runtime:
    """A GGUF file loaded in llama.cpp, everything that may be exact set to exact."""

    def __init__(self, path: str, context_length: int) -> None:
        llama_cpp.disable_logging()
        self.model = Model(path)
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

    def continue_greedily(self, prompt: list[int], tokens: int) -> list[int]:
        """The likeliest tokens after a prompt."""
        found: list[int] = []
        newest, position = prompt, 0
        while len(found) < tokens:
            found.append(int(self.logits(newest, position)[-1].argmax()))
            position += len(newest)
            newest = found[-1:]
        return found


def answer(folder: Path) -> None:
    """Reads the request of a folder and writes the answer beside it."""
    request: dict[str, Any] = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    runtime = Runtime(request["model"], request["context_length"])
    for number, sequence in enumerate(request["sequences"]):
        np.save(folder / f"logits-{number}.npy", runtime.logits(sequence, 0))
    result = {
        "texts": [runtime.tokenize(text) for text in request["texts"]],
        "continuations": [
            runtime.continue_greedily(prompt, request["greedy_tokens"])
            for prompt in request["prompts"]
        ],
    }
    (folder / "answer.json").write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    answer(Path(sys.argv[1]))
