"""Every line of docs/walkthrough.md runs and prints the output shown."""

import doctest

import torch

from tests.code_walk import ROOT


def test_every_line_of_the_walkthrough_prints_the_output_shown(monkeypatch):
    monkeypatch.chdir(ROOT)
    try:
        result = doctest.testfile(str(ROOT / "docs/walkthrough.md"), module_relative=False)
    finally:
        torch.set_default_dtype(torch.float32)
    assert result.attempted > 50
    assert result.failed == 0
