"""What transformers makes of a Hugging Face folder, in a process of its own (see ``runtime``).

python -m atlas.export.check.transformers_runtime FOLDER
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from atlas.export.check.runtime import Runtime, answer


class TransformersRuntime(Runtime):
    """A folder loaded by the Auto classes, which find everything in it."""

    def __init__(self, path: str, _context_length: int) -> None:
        # Special tokens are not read in texts: what they are spelt as is text like any other.
        self.tokenizer = AutoTokenizer.from_pretrained(path, split_special_tokens=True)
        self.model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
        self.cache: Any = None

    def tokenize(self, text: str) -> list[int]:
        """The ids of a text, special ones neither added nor read."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    @torch.no_grad()
    def logits(self, ids: list[int], position: int) -> npt.NDArray[np.float32]:
        """Logits (T, V) after each of ``ids`` (T), the first of which is at ``position``."""
        past = self.cache if position else None
        result = self.model(torch.tensor([ids]), past_key_values=past, use_cache=True)
        self.cache = result.past_key_values
        logits: npt.NDArray[np.float32] = result.logits[0].numpy()
        return logits


if __name__ == "__main__":
    answer(Path(sys.argv[1]), TransformersRuntime)
