"""Measure how fast a large model is written as GGUF, against a plain copy and gguf-py.

    python -m bench.export
    python -m bench.export --layers 4 --rounds 3      # a small model, to try it out

A model of 500 million random weights is written as F16 and as Q8_0. F16 is compared with a copy of
a file of that size, Q8_0 with gguf-py on whole tensors: quantize, add, write. All alternate, each
in its own process. Seconds cover the writing only; memory is the peak of the process (VmHWM of
Linux), PyTorch included.
"""

import argparse
import re
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import torch
from safetensors import safe_open
from sentencepiece.sentencepiece_model_pb2 import ModelProto

from atlas.export.bundle import ModelBundle, ModelMetadata
from atlas.export.gguf.writer import write_gguf
from atlas.model.weights import make_model, save_weights
from atlas.params.runtime_support import GgufFormat, architecture_of
from atlas.params.schema import load_params
from atlas.tokens.sentencepiece import SentencePieceTokenizer
from atlas.tokens.train_tokenizer import train_tokenizer
from bench.shared import ROOT, config_for, measure

SHAPE = {"d_model": 1280, "n_head": 20, "n_kv_head": 20, "d_ff": 3456, "context_length": 2048}
LAYERS, VOCABULARY = 23, 32768
QUIET = {"TQDM_DISABLE": "1"}
CONTESTANTS = ("ours_f16", "copy_f16", "ours_q8_0", "gguf_py_q8_0")
Measured = tuple[float, float]  # seconds, MB


def main() -> None:
    """Create the model, alternate the contestants, print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--layers", type=int, default=LAYERS)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        count, _, _ = measure("bench.export:make", name, options.layers, environment={})
        measure("bench.export:ours_f16", name, environment=QUIET)
        (folder / "out.gguf").rename(folder / "f16.gguf")
        found: dict[str, list[Measured]] = {each: [] for each in CONTESTANTS}
        for _ in range(options.rounds):
            for each in CONTESTANTS:
                result, _, _ = measure(f"bench.export:{each}", name, environment=QUIET)
                found[each].append(tuple(result))
                (folder / "out.gguf").unlink()
    print(f"{count:,} weights, {options.rounds} rounds, median (lowest to highest)")
    for each, results in found.items():
        seconds, memory = zip(*results, strict=True)
        print(
            f"{each:13}{statistics.median(seconds):7.2f} s ({min(seconds):.2f} to "
            f"{max(seconds):.2f}), at most {max(memory):,.0f} MB"
        )
    print(f"F16 over a plain copy: {ratio(found, 'ours_f16', 'copy_f16')}")
    print(f"gguf-py's Q8_0 over ours: {ratio(found, 'gguf_py_q8_0', 'ours_q8_0')}")


def ratio(found: dict[str, list[Measured]], first: str, second: str) -> str:
    """Format the ratio of two contestants' seconds: median, lowest and highest round."""
    ratios = sorted(a / b for (a, _), (b, _) in zip(found[first], found[second], strict=True))
    return f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"


def make(name: str, layers: str) -> int:
    """Store a model of random weights and its tokenizer; return the number of weights."""
    folder = Path(name)
    tokenizer = large_tokenizer()
    tokenizer.save(folder / "tokenizer")
    options = (
        load_params(ROOT / "params.yaml").model.model_dump() | SHAPE | {"n_layer": int(layers)}
    )
    config = config_for(options, tokenizer)
    model = make_model(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.02)
    (folder / "model").mkdir()
    config.write(folder / "model")
    save_weights(model, folder / "model/model.safetensors")
    return model.parameter_count()


def large_tokenizer() -> SentencePieceTokenizer:
    """Return a tokenizer padded to VOCABULARY pieces with pieces that occur in no text."""
    params = load_params(ROOT / "params.yaml").tokenizer.model_copy(update={"vocab_size": 300})
    lines = [f"{first}{second}\n" for first in "the lamp river" for second in "a stone garden"]
    trained = train_tokenizer(lines * 9, params)
    assert isinstance(trained, SentencePieceTokenizer)
    spec = ModelProto.FromString(trained.model)
    while len(spec.pieces) < VOCABULARY:
        spec.pieces.add(piece=f"\u2581piece{len(spec.pieces)}", score=-len(spec.pieces))
    return SentencePieceTokenizer(spec.SerializeToString())


def ours_f16(folder: str) -> Measured:
    """Write F16 with Atlas."""
    return write_with_atlas(Path(folder), "f16")


def ours_q8_0(folder: str) -> Measured:
    """Write Q8_0 with Atlas."""
    return write_with_atlas(Path(folder), "q8_0")


def copy_f16(folder: str) -> Measured:
    """Copy the F16 file."""
    source, target = Path(folder) / "f16.gguf", Path(folder) / "out.gguf"

    def copy() -> None:
        with source.open("rb") as read, target.open("wb") as written:
            shutil.copyfileobj(read, written, 1 << 20)

    return timed(copy)


def gguf_py_q8_0(folder: str) -> Measured:
    """Quantize, add and write whole tensors with gguf-py, as in its documentation."""

    def write() -> None:
        writer = gguf.GGUFWriter(Path(folder) / "out.gguf", "llama")
        with safe_open(Path(folder) / "model/model.safetensors", framework="np") as weights:
            for name in weights.keys():  # noqa: SIM118
                values = weights.get_tensor(name)
                kind = gguf.GGMLQuantizationType.Q8_0
                if values.ndim == 2:
                    writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
                else:
                    writer.add_tensor(name, values.astype(np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()

    return timed(write)


def write_with_atlas(folder: Path, name: GgufFormat) -> Measured:
    """Write the model as a GGUF file, with vocabulary and metadata."""
    source = ModelBundle.load(folder / "model", folder / "tokenizer", ModelMetadata("bench"))
    architecture = architecture_of(source.config.model_dump())
    if architecture is None:
        raise RuntimeError("llama.cpp has no architecture for the model of params.yaml")
    return timed(lambda: write_gguf(folder / "out.gguf", source, architecture, name))


def timed(work: Callable[[], None]) -> Measured:
    """Return the seconds of some work, and the peak memory of this process in MB."""
    started = time.perf_counter()
    work()
    seconds = time.perf_counter() - started
    # Not ru_maxrss, which starts at the memory of the parent process.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", status)
    return seconds, int(peak) * 1024 / 1e6


if __name__ == "__main__":
    main()
