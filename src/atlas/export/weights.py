"""The weights of a model on disk, some rows at a time."""

import json
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from atlas.errors import AtlasError
from atlas.model.storage import WEIGHTS

VALUES_AT_ONCE = 1 << 18  # 1 MB in float32, which stays in the processor's cache
TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}

Array = npt.NDArray[np.float32]
ReadPart = Callable[[], Array]


@dataclass(frozen=True)
class Place:
    """Where a weight is in the file.

    Attributes:
        shape: of it.
        kind: of its values.
        start: its first byte.
    """

    shape: tuple[int, ...]
    kind: torch.dtype
    start: int


class StoredWeights:
    """The weights that train wrote.

    The safetensors format is read here directly: a length of 8 bytes, that much JSON, and the
    values. The library maps a file, and what has been looked at of it counts as memory of the
    process.

    Attributes:
        shapes: of each weight, by name.
    """

    def __init__(self, folder: Path) -> None:
        """Reads the names, shapes and places in a model folder.

        Raises:
            AtlasError: the file holds values of a type that no model has.
        """
        self._path = folder / WEIGHTS
        with self._path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        self._places = {}
        for name, entry in header.items():
            if entry["dtype"] not in TYPES:
                raise AtlasError(f"{self._path}: {name} is of type {entry['dtype']}, not a float")
            start = 8 + length + entry["data_offsets"][0]
            self._places[name] = Place(tuple(entry["shape"]), TYPES[entry["dtype"]], start)
        self._local = threading.local()
        self.shapes = {name: place.shape for name, place in self._places.items()}

    def parts(self, name: str, multiple: int = 1) -> Iterator[ReadPart]:
        """What reads a weight in float32, part by part, in any thread.

        What it gives is overwritten when the same thread reads the next part: memory that is new
        to a process costs more than the reading.

        Args:
            name: of the weight.
            multiple: of which the rows of each part are a multiple.
        """
        rows, *rest = self.shapes[name]
        step = max(VALUES_AT_ONCE // torch.Size(rest).numel() // multiple, 1) * multiple
        for start in range(0, rows, step):
            yield partial(self._read, name, start, min(step, rows - start), self._scratch)

    def whole(self, name: str) -> Tensor:
        """A weight in float32."""
        rows, *_ = self.shapes[name]
        return torch.from_numpy(self._read(name, 0, rows, lambda size: np.empty(size, np.uint8)))

    def parameter_count(self) -> int:
        """Number of weights, a tied head counted once."""
        return sum(torch.Size(shape).numel() for shape in self.shapes.values())

    def _read(
        self, name: str, start: int, rows: int, memory: Callable[[int], npt.NDArray[np.uint8]]
    ) -> Array:
        place = self._places[name]
        per_row = torch.Size(place.shape[1:]).numel() * place.kind.itemsize
        data = memory(rows * per_row)
        with self._path.open("rb", buffering=0) as file:
            file.seek(place.start + start * per_row)
            if file.readinto(data.data) != len(data):
                raise AtlasError(f"{self._path}: cut short in {name}; `dvc repro` makes it again")
        values = torch.from_numpy(data).view(place.kind).to(torch.float32)
        found: Array = values.reshape(rows, *place.shape[1:]).numpy()
        return found

    def _scratch(self, size: int) -> npt.NDArray[np.uint8]:
        """Memory of this thread's own, used again and again."""
        there: npt.NDArray[np.uint8] | None = getattr(self._local, "memory", None)
        if there is None or len(there) < size:
            there = self._local.memory = np.empty(size, np.uint8)
        return there[:size]
