"""The tokens of a split, as one sequence over all its shards."""

import contextlib
import zlib
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from atlas.cleaning.documents import Split
from atlas.errors import AtlasError
from atlas.tokens.index import NAME, TokenIndex
from atlas.tokens.shards import open_shard, shard_path


class TokenSplit:
    """The tokens of a split.

    Attributes:
        name: of the split.
        index: of the folder it is in.
        bytes: size of the text that all of them stand for, in UTF-8.
        checksum: of all shards.
    """

    def __init__(self, folder: Path, split: Split, first: int = 0) -> None:
        """Maps the shards of a split.

        Args:
            folder: that tokenize wrote.
            split: its name.
            first: how many tokens to know of; 0 for all.

        Raises:
            AtlasError: a shard is missing, damaged, or of another tokenizer than the index.
        """
        _allow_many_files()
        self._folder = folder
        self._first = first
        self.name: Split = split
        self.index = TokenIndex.read(folder)
        if split not in self.index.splits:
            raise AtlasError(
                f"{folder / NAME}: it has no split {split}; `dvc repro -f tokenize` makes it"
            )
        entry = self.index.splits[split]
        self.bytes = entry.bytes
        self._shards = [
            open_shard(shard_path(folder, split, number), tokens, self.index.tokenizer_sha256)
            for number, tokens in enumerate(entry.shards)
        ]
        self.checksum = zlib.crc32(str([shard.checksum for shard in self._shards]).encode())
        self._starts = np.cumsum([0, *(len(shard.ids) for shard in self._shards)])

    def __len__(self) -> int:
        everything = int(self._starts[-1])
        return min(self._first or everything, everything)

    def __reduce__(self) -> tuple[type["TokenSplit"], tuple[Path, Split, int]]:
        """Another process maps the files itself; nothing of them travels."""
        return TokenSplit, (self._folder, self.name, self._first)

    @cached_property
    def document_ends(self) -> npt.NDArray[np.int64]:
        """Where each document ends that is there to its end, (documents,)."""
        ends = np.concatenate(
            [
                np.empty(0, np.int64),
                *(
                    start + shard.ends.astype(np.int64)
                    for start, shard in zip(self._starts, self._shards, strict=False)
                ),
            ]
        )
        return ends[ends <= len(self)]

    def read(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """The tokens from ``start`` up to ``stop``, across shards."""
        parts = []
        number = int(np.searchsorted(self._starts, start, side="right")) - 1
        while start < stop:
            offset = self._starts[number]
            end = min(stop, int(self._starts[number + 1]))
            parts.append(self._shards[number].ids[start - offset : end - offset].astype(np.int64))
            start, number = end, number + 1
        return np.concatenate(parts) if parts else np.empty(0, np.int64)


def _allow_many_files() -> None:
    """Each shard stays open, and many systems allow 1,024 files unless asked for more."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
