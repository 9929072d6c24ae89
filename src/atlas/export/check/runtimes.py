"""The runtimes that read exported files, each started in its own process.

    python -m atlas.export.check.runtimes RUNTIME FOLDER

RUNTIME is a key of ``RUNTIMES``. FOLDER holds ``request.json``: the file or folder ``model``, its
``context_length``, ``texts`` to tokenize, ``sequences`` of ids to compute logits for, and
``prompts`` (ids) to continue greedily by ``greedy_tokens``. The process writes ``answer.json``
(``texts`` and ``continuations`` as ids) and ``logits-N.npy``, (T, V), to the same folder.

A process imports only its own runtime, so the imports are inside the classes, and none imports the
code of Atlas's models.
"""

import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from atlas.pipeline.processes import threads

Array = npt.NDArray[Any]
Logits = npt.NDArray[np.float32]


class Runtime(ABC):
    """A loaded model."""

    def tokenize(self, text: str) -> list[int]:
        """Tokenize a text without adding special tokens; their names are ordinary text."""
        raise NotImplementedError(f"{type(self).__name__} has no tokenizer")

    @abstractmethod
    def logits(self, ids: list[int], position: int) -> Logits:
        """Compute logits (T, V) after each of ``ids`` (T), which continue the previous call.

        Position 0 starts a new text.
        """


class LlamaCpp(Runtime):
    """A GGUF file in llama.cpp with its most exact settings: F32 cache, no flash attention."""

    def __init__(self, path: str, context_length: int) -> None:
        from cyllama.llama import llama_cpp

        from atlas.inference.backends.gguf import LlamaModel, new_context

        llama_cpp.disable_logging()
        self._new_batch = llama_cpp.LlamaBatch
        self._model = LlamaModel(path)
        self._vocabulary = self._model.get_vocab()
        self._context = new_context(self._model, 1, context_length, exact=True)

    def tokenize(self, text: str) -> list[int]:
        """Tokenize a text without special tokens."""
        return list(self._vocabulary.tokenize(text, add_special=False, parse_special=False))

    def logits(self, ids: list[int], position: int) -> Logits:
        """Compute logits (T, V) after each of ``ids`` (T)."""
        if position == 0:
            self._context.kv_cache_clear()
        batch = self._new_batch(n_tokens=len(ids), embd=0, n_seq_max=1)
        for offset, token in enumerate(ids):
            batch.add(token, position + offset, [0], True)
        self._context.decode(batch)
        rows = np.empty((len(ids), self._model.n_vocab), np.float32)
        for offset in range(len(ids)):
            rows[offset] = self._context.get_logits_ith(offset)
        return rows


class Transformers(Runtime):
    """A Hugging Face folder, loaded by transformers' Auto classes."""

    def __init__(self, path: str, _context_length: int) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._torch = torch
        self._tokenizer = AutoTokenizer.from_pretrained(path, split_special_tokens=True)
        self._model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
        self._cache: Any = None

    def tokenize(self, text: str) -> list[int]:
        """Tokenize a text without special tokens."""
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def logits(self, ids: list[int], position: int) -> Logits:
        """Compute logits (T, V) after each of ``ids`` (T)."""
        cache = self._cache if position else None
        with self._torch.no_grad():
            tokens = self._torch.tensor([ids])
            output = self._model(tokens, past_key_values=cache, use_cache=True)
        self._cache = output.past_key_values
        logits: Logits = output.logits[0].numpy()
        return logits


class Program(Runtime):
    """A program with keys and values as inputs and outputs (see ``atlas.export.programs``).

    ``run`` takes ids, a mask and past keys and values, (batch, heads, past, head size) each. It
    returns the logits, then the keys and values of all tokens.
    """

    def __init__(
        self, run: Callable[[Array, Array, list[Array]], list[Array]], past: list[tuple[Any, ...]]
    ) -> None:
        self._run = run
        self._empty = [np.zeros((1, heads, 0, size), np.float32) for _, heads, _, size in past]
        self._past = self._empty

    def logits(self, ids: list[int], position: int) -> Logits:
        """Compute logits (T, V) after each of ``ids`` (T), passing keys and values back in."""
        past = self._past if position else self._empty
        mask = np.ones((1, position + len(ids)), np.int64)
        logits, *self._past = self._run(np.array([ids], np.int64), mask, past)
        first: Logits = logits[0]
        return first


def load_onnx(path: str, _context_length: int) -> Program:
    """Load an ONNX file in onnxruntime, on the CPU."""
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.intra_op_num_threads = threads()
    session = InferenceSession(path, options, providers=["CPUExecutionProvider"])
    inputs = session.get_inputs()

    def run(ids: Array, mask: Array, past: list[Array]) -> list[Array]:
        names = (each.name for each in inputs)
        outputs: list[Array] = session.run(None, dict(zip(names, (ids, mask, *past), strict=True)))
        return outputs

    return Program(run, [tuple(each.shape) for each in inputs[2:]])


def load_torch_export(path: str, _context_length: int) -> Program:
    """Load a program of torch.export in PyTorch."""
    import torch

    program = torch.export.load(path)
    module = program.module()
    (_, _, example), _ = program.example_inputs

    @torch.no_grad()
    def run(ids: Array, mask: Array, past: list[Array]) -> list[Array]:
        convert = torch.from_numpy
        outputs = module(convert(ids), convert(mask), [convert(each) for each in past])
        return [each.numpy() for each in outputs]

    return Program(run, [tuple(each.shape) for each in example])


RUNTIMES: dict[str, Callable[[str, int], Runtime]] = {
    "llama.cpp": LlamaCpp,
    "transformers": Transformers,
    "onnxruntime": load_onnx,
    "torch.export": load_torch_export,
}


def answer_request(folder: Path, load: Callable[[str, int], Runtime]) -> None:
    """Read request.json of a folder and write the answer to it.

    ``load`` loads a file or folder, given its context length.
    """
    request: dict[str, Any] = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    runtime = load(request["model"], request["context_length"])
    for number, sequence in enumerate(request["sequences"]):
        np.save(folder / f"logits-{number}.npy", runtime.logits(sequence, 0))
    answer = {
        "texts": [runtime.tokenize(text) for text in request["texts"]],
        "continuations": [
            _continue_greedily(runtime, prompt, request["greedy_tokens"])
            for prompt in request["prompts"]
        ],
    }
    (folder / "answer.json").write_text(json.dumps(answer), encoding="utf-8")


def _continue_greedily(runtime: Runtime, prompt: list[int], tokens: int) -> list[int]:
    ids: list[int] = []
    new, position = prompt, 0
    while len(ids) < tokens:
        ids.append(int(runtime.logits(new, position)[-1].argmax()))
        position += len(new)
        new = ids[-1:]
    return ids


if __name__ == "__main__":
    answer_request(Path(sys.argv[2]), RUNTIMES[sys.argv[1]])
