"""The console command, run in this process."""

import io
import sys
from contextlib import chdir
from pathlib import Path
from unittest.mock import patch

from atlas.tools import cli
from tests.code_walk import ROOT


def atlas(*arguments: str, cwd: Path = ROOT, given: str = "") -> tuple[int, str, str]:
    """Run the console command; return its exit code, stdout and stderr."""
    streams = {
        name: io.TextIOWrapper(io.BytesIO(content), encoding="utf-8", write_through=True)
        for name, content in (("stdin", given.encode()), ("stdout", b""), ("stderr", b""))
    }
    buffers = [streams[name].buffer for name in ("stdout", "stderr")]
    code = 0
    with chdir(cwd), patch.multiple(sys, argv=["atlas", *arguments], **streams):
        try:
            cli.run()
        except SystemExit as end:
            code = int(end.code or 0)
    printed, error = (buffer.getvalue().decode() for buffer in buffers)
    return code, printed, error
