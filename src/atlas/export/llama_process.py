"""llama.cpp in a process of its own: a failed assertion of ggml ends the process it is in."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import atlas
from atlas.errors import AtlasError

SECONDS = 600  # for one file; a runtime that hangs has failed


def threads() -> int:
    """How many such a process uses: as PyTorch does, ``OMP_NUM_THREADS`` or a core each.

    llama.cpp's own four would wait for each other on fewer cores.
    """
    value = os.environ.get("OMP_NUM_THREADS", "")
    return int(value) if value.isdecimal() and int(value) else os.cpu_count() or 1


def ask_llama_cpp(module: str, request: dict[str, Any], folder: Path, *, file: Path) -> Any:
    """Runs a module that reads ``request.json`` of a folder and writes ``answer.json`` beside it.

    Returns:
        The answer.

    Raises:
        AtlasError: as ``run_llama_cpp``.
    """
    (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
    run_llama_cpp(module, str(folder), file=file)
    return json.loads((folder / "answer.json").read_text(encoding="utf-8"))


def run_llama_cpp(module: str, *arguments: str, file: Path) -> None:
    """Runs one of our modules that use llama.cpp.

    Args:
        module: as ``python -m`` takes it.
        arguments: of it.
        file: that it is about, for the message.

    Raises:
        AtlasError: it failed, crashed or hung.
    """
    source = Path(atlas.__file__).parent.parent
    try:
        run = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            env=os.environ | {"PYTHONPATH": str(source), "GGML_NO_BACKTRACE": "1"},
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise AtlasError(f"{file}: llama.cpp did not answer within {SECONDS} s") from None
    if run.returncode:
        reason = (run.stderr.strip().splitlines() or ["no message"])[-1]
        raise AtlasError(f"{file}: llama.cpp failed with exit code {run.returncode}: {reason}")
