"""The three parts of a corpus: what trains, what validates, what tests."""

from typing import Literal

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
