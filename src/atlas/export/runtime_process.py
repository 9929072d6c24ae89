"""A runtime in a process of its own: a failed assertion in it ends the process it is in."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import atlas
from atlas.errors import AtlasError, one_line

FULL = 1 << 20  # bytes that are free on a disk that takes no more; few runtimes tell
SECONDS = 3600  # for one file; a runtime that hangs has failed


@dataclass(frozen=True)
class RuntimeModule:
    """One of our modules that use a runtime.

    Attributes:
        runtime: its name, for messages.
        module: as ``python -m`` takes it.
        tokenizes: whether what it reads has a tokenizer.
    """

    runtime: str
    module: str
    tokenizes: bool = True

    def ask(self, request: dict[str, Any], folder: Path, *, file: Path) -> Any:
        """Has it read ``request.json`` of a folder and write ``answer.json`` beside it.

        Returns:
            The answer.

        Raises:
            AtlasError: as ``run``.
        """
        (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
        self.run(str(folder), file=file)
        return json.loads((folder / "answer.json").read_text(encoding="utf-8"))

    def run(self, *arguments: str, file: Path) -> None:
        """Runs it.

        Args:
            arguments: of the module.
            file: that it is about, for the message.

        Raises:
            AtlasError: it failed, crashed or hung.
        """
        source = Path(atlas.__file__).parent.parent
        offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
        quiet = {"GGML_NO_BACKTRACE": "1", "TQDM_DISABLE": "1"}
        try:
            run = subprocess.run(
                [sys.executable, "-P", "-m", self.module, *arguments],  # no code from the folder
                env=os.environ | {"PYTHONPATH": str(source)} | offline | quiet,
                capture_output=True,
                text=True,
                timeout=SECONDS,
            )
        except subprocess.TimeoutExpired:
            raise AtlasError(f"{file}: {self.runtime} did not answer within {SECONDS} s") from None
        if run.returncode:
            full = shutil.disk_usage(file.parent).free < FULL
            reason = "the disk is full; free some space" if full else _reason(run.stderr)
            raise AtlasError(
                f"{file}: {self.runtime} failed with exit code {run.returncode}: {reason}"
            )


def _reason(printed: str) -> str:
    """The last line that speaks of an error, or the last one; C++ prints its stack after it."""
    lines = printed.strip().splitlines() or ["no message"]
    errors = [line for line in lines if "error" in line.lower() or "what():" in line]
    return one_line((errors or lines)[-1])
