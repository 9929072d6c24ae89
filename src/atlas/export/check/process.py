"""Run a runtime in its own process, because a failed C++ assertion ends the process."""

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

FULL_DISK = 1 << 20  # free bytes; few runtimes report a full disk, so the message guesses from this
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
