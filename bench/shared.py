"""Shared by the benchmarks: texts of any size, and the measurement of processes."""

import gzip
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from atlas.model.config import ModelConfig
from atlas.tokens.tokenizer import Tokenizer

ROOT = Path(__file__).resolve().parent.parent
REPLACED = (0.02, 0.33)  # fractions of replaced words, alternating


def copies(texts: Path) -> Iterator[str]:
    """Yield the texts of a folder unchanged, then changed copies without end."""
    sources = [read(path) for path in sorted(texts.iterdir()) if ".txt" in path.suffixes]
    if not sources:
        sys.exit(f"error: {texts} contains no .txt or .txt.gz files")
    yield from sources
    generator = random.Random(1)
    while True:
        for share in REPLACED:
            for source in sources:
                yield changed(source, share, generator)


def read(path: Path) -> str:
    """Read a text file, gzipped or not."""
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode(errors="replace")


def changed(text: str, share: float, generator: random.Random) -> str:
    """Replace a fraction of the words by other words of the text, keeping line ends."""
    words = text.split(" ")
    for place in generator.sample(range(len(words)), round(share * len(words))):
        words[place] = words[generator.randrange(len(words))]
    return " ".join(words)


def config_for(options: Mapping[str, Any], tokenizer: Tokenizer) -> ModelConfig:
    """Configure an untrained model for a tokenizer; ``options`` are those of ``model``."""
    return ModelConfig(
        **options,
        vocab_size=tokenizer.vocab_size,
        bos=tokenizer.eos,
        eos=tokenizer.eos,
        end_ids=(tokenizer.eos,),
        sequence_length=options["context_length"],
        separator=None,
        add_bos_token=False,
        tokenizer_sha256=tokenizer.sha256,
        learned_tokens=0,
    )


def measure(
    function: str, *arguments: object, environment: Mapping[str, str]
) -> tuple[Any, float, int]:
    """Run ``module:function`` in a new process.

    Returns:
        Its result (through JSON), its seconds, and the bytes of its largest process.
    """
    module, name = function.split(":")
    code = (
        f"import sys, json; from {module} import {name}; print(json.dumps({name}(*sys.argv[1:])))"
    )
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    largest = 0
    while process.poll() is None:
        largest = max(largest, *sizes(process.pid))
        time.sleep(0.2)  # measuring costs CPU time as well
    seconds = time.perf_counter() - started
    printed, _ = process.communicate()
    if process.returncode:
        sys.exit(f"error: {function} ended with {process.returncode}")
    return json.loads(printed), seconds, largest


def sizes(pid: int) -> list[int]:
    """Return the bytes of unshared memory of a process and its descendants."""
    found = [0, 0]
    try:
        parent = psutil.Process(pid)
        for process in [parent, *parent.children(recursive=True)]:
            memory = process.memory_info()
            found.append(memory.rss - memory.shared)
    except psutil.Error:
        pass  # it has just ended
    return found
