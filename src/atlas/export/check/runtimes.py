"""The runtimes that read exported files, each in a process of its own.

A failed C++ assertion ends the process, so ``RuntimeProcess`` starts another for each file::

    python -m atlas.export.check.runtimes FOLDER

FOLDER holds ``request.json``: the ``runtime``, a key of ``RUNTIMES``, the file or folder ``model``,
its ``context_length``, and what to do. The process writes ``answer.json`` to the same folder.

- ``texts`` to tokenize, ``sequences`` of ids to compute logits for, and ``prompts`` (ids) to
  continue greedily by ``greedy_tokens``: the answer has ``texts`` and ``continuations`` as ids, the
  ``end_ids``, and ``logits-N.npy``, (T, V), is next to it. V is ``vocab_size``: some models have
  unused logits after those of the vocabulary.
- ``adapter``, a GGUF file with a LoRA adapter of the model: it is loaded.
- ``exact``, the F32 file to compare with, or null: the answer measures the predictions in the
  windows of ``windows.npz`` (``inputs``, ``targets``, (N, T); negative targets are ignored), and
  the runtime's speed.

Imports are inside the functions, so that a process imports only its own runtime, and never the
code of Atlas's models.
"""

import functools
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import atlas
from atlas.errors import AtlasError, one_line
from atlas.pipeline.processes import loading_llama_cpp, threads

Array = npt.NDArray[Any]
Logits = npt.NDArray[np.float32]

FULL_DISK = 1 << 20  # free bytes below which a failure is blamed on the disk; few runtimes say it
SPEED_ROUNDS, SPEED_TOKENS = 4, 64  # prompts read, tokens generated to measure speed
STEP = 256  # tokens whose logits are in memory at once
TIMEOUT = 3600  # seconds; a runtime that hangs has failed
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "GGML_NO_BACKTRACE": "1",
    "TQDM_DISABLE": "1",
}


@dataclass(frozen=True)
class RuntimeProcess:
    """An Atlas module that runs a runtime when started with ``python -m``."""

    name: str
    module: str = "atlas.export.check.runtimes"
    tokenizes: bool = True

    def ask(self, request: dict[str, Any], folder: Path, *, file: Path) -> Any:
        """Write request.json to a folder, run the module on it, and read answer.json."""
        text = json.dumps(request | {"runtime": self.name, "model": str(file.resolve())})
        (folder / "request.json").write_text(text, encoding="utf-8")
        self.run(str(folder), file=file)
        return json.loads((folder / "answer.json").read_text(encoding="utf-8"))

    def run(self, *arguments: str, file: Path) -> None:
        """Run the module on a file; a runtime that fails, crashes or hangs is an error."""
        source = Path(atlas.__file__).parent.parent
        # -P: no code is imported from the current folder.
        command = [sys.executable, "-P", "-m", self.module, *arguments]
        try:
            result = subprocess.run(
                command,
                env=os.environ | ENVIRONMENT | {"PYTHONPATH": str(source)},
                capture_output=True,
                text=True,
                timeout=TIMEOUT,
            )
        except subprocess.TimeoutExpired:
            raise AtlasError(f"{file}: {self.name} did not answer within {TIMEOUT} s") from None
        if result.returncode:
            lines = result.stderr.strip().splitlines() or ["no message"]
            errors = [line for line in lines if "error" in line.lower() or "what():" in line]
            reason = one_line((errors or lines)[-1])  # C++ prints its stack after the error
            if shutil.disk_usage(file.parent).free < FULL_DISK:
                reason = "the disk is full; free some space"
            raise AtlasError(
                f"{file}: {self.name} failed with exit code {result.returncode}: {reason}"
            )


@dataclass(frozen=True)
class Runtime:
    """A loaded model.

    ``logits`` computes logits (T, V) after each of T ids, which continue the previous call; at the
    position 0 they start a new text.
    """

    logits: Callable[[list[int], int], Logits]  # of ids and the position of the first
    tokenize: Callable[[str], list[int]] | None = None  # names of special tokens are ordinary text
    speed: Callable[[list[int]], dict[str, float]] | None = None  # see ``llama_cpp_speed``
    end_ids: Sequence[int] = ()  # of tokens that end a generated text
    load_adapter: Callable[[str], object] | None = None  # from a file


def load_llama_cpp(path: str, context_length: int) -> Runtime:
    """Load a GGUF file with llama.cpp's most exact settings: F32 cache, no flash attention."""
    with loading_llama_cpp():
        from cyllama.llama import llama_cpp

    from atlas.inference.backends.gguf import copy_logits, load_gguf, new_context

    model = load_gguf(Path(path))
    vocabulary = model.get_vocab()
    context = new_context(model, 1, context_length, exact=True)

    def logits(ids: list[int], position: int) -> Logits:
        if position == 0:
            context.kv_cache_clear()
        batch = llama_cpp.LlamaBatch(n_tokens=len(ids), embd=0, n_seq_max=1)
        for offset, token in enumerate(ids):
            batch.add(token, position + offset, [0], True)
        context.decode(batch)
        return copy_logits(context, range(len(ids)), model.n_vocab)

    def tokenize(text: str) -> list[int]:
        return list(vocabulary.tokenize(text, add_special=False, parse_special=False))

    def speed(ids: list[int]) -> dict[str, float]:
        return llama_cpp_speed(new_context(model, 1, context_length, exact=False), ids)

    ends = [each for each in range(model.n_vocab) if vocabulary.is_eog(each)]
    return Runtime(logits, tokenize, speed, ends, model.lora_adapter_init)


def llama_cpp_speed(context: Any, ids: list[int]) -> dict[str, float]:
    """Tokens per second: ``prompt`` for reading half of the ids at once, ``generation`` for more.

    Sampling and the copy of logits into Python are left out: llama.cpp's own programs copy nothing.
    """
    with loading_llama_cpp():
        from cyllama.llama import llama_cpp

    def seconds(new: list[int], position: int) -> float:
        batch = llama_cpp.LlamaBatch(n_tokens=len(new), embd=0, n_seq_max=1)
        for offset, token in enumerate(new):
            batch.add(token, position + offset, [0], offset == len(new) - 1)
        started = time.perf_counter()
        context.decode(batch)
        return time.perf_counter() - started

    half = max(1, len(ids) // 2)
    prompt, more = ids[:half], ids[half : half + SPEED_TOKENS] or ids[:1]
    reading = []
    for _ in range(SPEED_ROUNDS):
        context.kv_cache_clear()
        reading.append(seconds(prompt, 0))
    writing = [seconds([token], half + step) for step, token in enumerate(more)]
    return {"prompt": half / min(reading), "generation": 1 / statistics.median(writing)}


def load_transformers(path: str, _context_length: int) -> Runtime:
    """Load a Hugging Face folder with transformers' Auto classes."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    safe = {"local_files_only": True, "trust_remote_code": False}
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, **safe).eval()
    cache: Any = None

    @torch.no_grad()
    def logits(ids: list[int], position: int) -> Logits:
        nonlocal cache
        past = cache if position else None
        output = model(torch.tensor([ids]), past_key_values=past, use_cache=True)
        cache = output.past_key_values
        rows: Logits = output.logits[0].numpy()
        return rows

    @functools.cache
    def tokenizer() -> Any:  # a folder may have none, if there are no texts
        return AutoTokenizer.from_pretrained(path, split_special_tokens=True, **safe)

    def tokenize(text: str) -> list[int]:
        return list(tokenizer()(text, add_special_tokens=False)["input_ids"])

    ends = model.generation_config.eos_token_id
    return Runtime(logits, tokenize, end_ids=ends if isinstance(ends, list) else [ends])


def load_program(
    run: Callable[[Array, Array, list[Array]], list[Array]], shapes: Iterable[Sequence[Any]]
) -> Runtime:
    """Wrap a program with keys and values as inputs and outputs (see ``atlas.export.programs``).

    ``run`` takes ids, a mask and past keys and values, (batch, heads, past, head size) each, whose
    ``shapes`` are given. It returns the logits, then the keys and values of all tokens.
    """
    empty = [np.zeros((1, heads, 0, size), np.float32) for _, heads, _, size in shapes]
    past = empty

    def logits(ids: list[int], position: int) -> Logits:
        nonlocal past
        mask = np.ones((1, position + len(ids)), np.int64)
        rows, *past = run(np.array([ids], np.int64), mask, past if position else empty)
        first: Logits = rows[0]
        return first

    return Runtime(logits)


def load_onnx(path: str, _context_length: int) -> Runtime:
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

    return load_program(run, [each.shape for each in inputs[2:]])


def load_torch_export(path: str, _context_length: int) -> Runtime:
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

    return load_program(run, [each.shape for each in example])


RUNTIMES: dict[str, Callable[[str, int], Runtime]] = {
    "llama.cpp": load_llama_cpp,
    "transformers": load_transformers,
    "onnxruntime": load_onnx,
    "torch.export": load_torch_export,
}


def answer_request(folder: Path) -> None:
    """Read request.json of a folder and write the answer to it."""
    request: dict[str, Any] = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    load, length = RUNTIMES[request["runtime"]], request["context_length"]
    runtime = load(request["model"], length)
    answer: dict[str, Any] = {}
    if "adapter" in request and runtime.load_adapter:
        runtime.load_adapter(request["adapter"])
    elif "exact" in request:
        exact = load(request["exact"], length) if request["exact"] else None
        windows = np.load(folder / "windows.npz")
        answer |= measure(runtime, exact, windows["inputs"], windows["targets"])
        answer["speed"] = runtime.speed(windows["inputs"][0].tolist()) if runtime.speed else None
    else:
        vocab_size = request["vocab_size"]

        def logits(ids: list[int], position: int) -> Logits:
            return runtime.logits(ids, position)[:, :vocab_size]

        for number, sequence in enumerate(request["sequences"]):
            np.save(folder / f"logits-{number}.npy", logits(sequence, 0))
        answer = {
            "end_ids": list(runtime.end_ids),
            "texts": [runtime.tokenize(text) for text in request["texts"] if runtime.tokenize],
            "continuations": [
                continue_greedily(logits, prompt, request["greedy_tokens"])
                for prompt in request["prompts"]
            ],
        }
    (folder / "answer.json").write_text(json.dumps(answer), encoding="utf-8")


def continue_greedily(
    logits: Callable[[list[int], int], Any], prompt: list[int], tokens: int
) -> list[int]:
    """Append the most likely token repeatedly, even after an end-of-text token."""
    ids: list[int] = []
    new, position = prompt, 0
    while len(ids) < tokens:
        ids.append(int(logits(new, position)[-1].argmax()))
        position += len(new)
        new = ids[-1:]
    return ids


def measure(
    runtime: Runtime, exact: Runtime | None, inputs: Array, targets: Array
) -> dict[str, float]:
    """Sum loss and divergence from ``exact`` over all targets, in nats, and equal predictions."""
    loss = divergence = 0.0
    same = 0
    for window, window_targets in zip(inputs, targets, strict=True):
        for start in range(0, len(window), STEP):
            ids, expected = (each[start : start + STEP] for each in (window, window_targets))
            predicted = np.flatnonzero(expected >= 0)
            log_q = log_softmax(runtime.logits(ids.tolist(), start)[predicted])
            loss -= float(log_q[np.arange(len(predicted)), expected[predicted]].sum())
            if exact:
                log_p = log_softmax(exact.logits(ids.tolist(), start)[predicted])
                divergence += float((np.exp(log_p) * (log_p - log_q)).sum())
                same += int((log_p.argmax(axis=1) == log_q.argmax(axis=1)).sum())
    return {"loss": loss, "divergence": divergence, "same": same}


def log_softmax(logits: Logits) -> npt.NDArray[np.float64]:
    """Compute log-probabilities (T, V) from logits (T, V)."""
    shifted: npt.NDArray[np.float64] = logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted


if __name__ == "__main__":
    answer_request(Path(sys.argv[1]))
