"""Runtimes without a process of their own, so that a test of many models starts them once."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from atlas.export.check.runtime import Runtime, answer
from atlas.export.runtime_process import RuntimeModule


@dataclass(frozen=True)
class InThisProcess(RuntimeModule):
    """Answers as the module would.

    Attributes:
        load: what it loads.
    """

    load: Callable[[str, int], Runtime] | None = None

    def run(self, *arguments: str, file: Path) -> None:
        """Answers."""
        answer(Path(arguments[0]), self.load)
