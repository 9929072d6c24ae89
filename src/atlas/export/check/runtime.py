"""What the check asks of each runtime, and how a process of its own answers.

FOLDER, the argument of each of these processes, holds ``request.json``: the file or folder
``model``, its ``context_length``, ``texts`` to tokenize, ``sequences`` of ids to give logits for,
``prompts`` (ids) to continue greedily by ``greedy_tokens``. The answer goes to ``answer.json``
(``texts`` as ids, ``continuations`` as ids) and ``logits-N.npy``, (T, V).
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


class Runtime(ABC):
    """An exported model, loaded."""

    def tokenize(self, text: str) -> list[int]:
        """The ids of a text, special ones neither added nor read."""
        raise NotImplementedError(f"{type(self).__name__} has no tokenizer")

    @abstractmethod
    def logits(self, ids: list[int], position: int) -> npt.NDArray[np.float32]:
        """Logits (T, V) after each of ``ids`` (T), which go on from those before ``position``.

        At position 0 a new text begins.
        """


def answer(folder: Path, load: Callable[[str, int], Runtime]) -> None:
    """Reads the request of a folder and writes the answer beside it.

    Args:
        folder: the argument of the process.
        load: a file or folder, for texts of at most so many tokens.
    """
    request: dict[str, Any] = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    runtime = load(request["model"], request["context_length"])
    for number, sequence in enumerate(request["sequences"]):
        np.save(folder / f"logits-{number}.npy", runtime.logits(sequence, 0))
    result = {
        "texts": [runtime.tokenize(text) for text in request["texts"]],
        "continuations": [
            _continue_greedily(runtime, prompt, request["greedy_tokens"])
            for prompt in request["prompts"]
        ],
    }
    (folder / "answer.json").write_text(json.dumps(result), encoding="utf-8")


def _continue_greedily(runtime: Runtime, prompt: list[int], tokens: int) -> list[int]:
    found: list[int] = []
    newest, position = prompt, 0
    while len(found) < tokens:
        found.append(int(runtime.logits(newest, position)[-1].argmax()))
        position += len(newest)
        newest = found[-1:]
    return found
