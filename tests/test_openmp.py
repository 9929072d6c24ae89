"""Threads of OpenMP give up their core soon, whichever command or stage loads them."""

import os
import re
import subprocess
import sys

import pytest

from tests.code_walk import ROOT


def spin_counts(module: str, **environment: str) -> set[str]:
    """The settings that every OpenMP library of a module reports when it is loaded."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("GOMP_", "OMP_"))}
    loaded = subprocess.run(
        [sys.executable, "-c", f"import {module}"],
        cwd=ROOT,
        env=kept | {"OMP_DISPLAY_ENV": "verbose"} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    found = set(re.findall(r"GOMP_SPINCOUNT = '(\d+)'", loaded.stderr))
    if not found:
        pytest.skip("this build uses another OpenMP library")
    return found


@pytest.mark.parametrize(
    "module",
    [
        "stages.train_tokenizer",  # sentencepiece
        pytest.param("stages.train", marks=pytest.mark.slow),  # PyTorch
        pytest.param("bench.generate", marks=pytest.mark.slow),
    ],
)
def test_waiting_threads_spin_briefly(module):
    assert spin_counts(module) == {"20000"}


def test_those_of_llama_cpp_spin_even_less():
    assert "1000" in spin_counts("atlas.inference.backends.gguf")
    assert spin_counts("atlas.inference.backends.gguf", GOMP_SPINCOUNT="7") == {"7"}


def test_the_settings_of_the_user_stay():
    module = "stages.train_tokenizer"
    assert spin_counts(module, GOMP_SPINCOUNT="7") == {"7"}
    assert spin_counts(module, OMP_WAIT_POLICY="passive") == {"0"}
