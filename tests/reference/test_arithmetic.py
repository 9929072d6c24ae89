"""The whole reference learns a small language."""

import os
import subprocess
import sys

import pytest

from tests.code_walk import ROOT


@pytest.mark.slow
def test_numpy_learns_arithmetic():
    """In a new process, because NumPy sets its number of threads at import."""
    code = "from bench.reference import learn; print(learn(seed=1))"
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(run.stdout.splitlines()[-1]) >= 0.95
