"""llama.cpp in a process of its own: a failed assertion of ggml ends the process it is in."""

import os
import subprocess
import sys
from pathlib import Path

import atlas
from atlas.errors import AtlasError

SECONDS = 600  # for one file; a runtime that hangs has failed


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
