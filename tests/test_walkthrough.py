"""The page that walks through the model says what happens."""

import doctest

import torch

from tests.code_walk import ROOT


def test_every_line_of_the_walkthrough_gives_what_stands_below_it(monkeypatch):
    monkeypatch.chdir(ROOT)
    try:
        result = doctest.testfile(str(ROOT / "docs/walkthrough.md"), module_relative=False)
    finally:
        torch.set_default_dtype(torch.float32)
    assert result.attempted > 50
    assert result.failed == 0
