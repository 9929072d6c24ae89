"""The corpus `files`: the user's own texts, a file or a folder.

Files are copied byte for byte; archives stay closed. Files of an unknown suffix are copied if they
start like text, and otherwise passed over. Files that can't be read are skipped with a warning.

Many small files are packed into a few large ones, because DVC and file systems need longer for
20,000 files than clean needs for their text. Clean reads packs as if they were the files.
"""

import contextlib
import hashlib
import logging
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from atlas.corpora.formats import HEAD, compression_of, detect, format_of, split_suffixes
from atlas.corpora.manifest import RawFile, write_pack
from atlas.errors import NO_ROOM, AtlasError, one_line

MANY_FILES = 1000  # from here on small ones are packed
SMALL = 1 << 16  # bytes
PACK = 4 << 20  # bytes, the work of one task of clean
TRIES = 2  # for a file that changes while it is copied
LICENCE = "the user's own"
MAX_NAMED = 10  # files in a warning

Skip = Callable[[str, str], None]  # takes the name of a skipped file or folder, and the reason


def copy_files(source: Path, folder: Path) -> tuple[list[RawFile], dict[str, int]]:
    """Copy every file below ``source`` that can hold text into ``folder``, byte for byte.

    Hidden files and folders are ignored. Links are followed, but no folder is read twice. Return
    the copies, and the numbers of files that were passed over or unreadable.
    """
    base, single = _locate(source)
    warn = logging.getLogger(__name__).warning
    unreadable: list[str] = []
    passed_over: list[str] = []

    def skip(name: str, reason: str) -> None:
        unreadable.append(name)
        warn("%s", _printable(f"{base / name} skipped: {reason}"))

    names = sorted(_walk(base, skip) if single is None else [single])
    packs = _Packs(base, folder) if len(names) >= MANY_FILES else None
    copies: list[RawFile] = []
    for name in names:
        path = base / name
        if unsuitable := _unsuitable(path, name):
            passed_over.append(unsuitable)
        elif packs and (data := _read_small(path)) is not None:
            packs.add(name, data)
        else:
            try:
                sha256, size = _copy(path, folder / name)
            except _NotCopiedError as error:
                skip(name, str(error))
            else:
                copies.append(RawFile(name, path.as_posix(), sha256, size, LICENCE))
    if packs:
        copies += packs.finish()
    named = ", ".join(passed_over[:MAX_NAMED]) + (", ..." if len(passed_over) > MAX_NAMED else "")
    if unreadable and not copies:
        raise AtlasError(
            f"corpus.files.path: nothing in {source} could be read ({len(unreadable)} skipped, "
            "listed above); fix that, or choose another corpus.name"
        )
    if not copies:
        found = f"only files that are not text ({_printable(named)})" if named else "no files"
        raise AtlasError(
            f"corpus.files.path: {source} contains {found}; put your texts there (formats: "
            "docs/text.md), or choose another corpus.name (queued experiments only see files "
            "tracked by git: give an absolute path)"
        )
    if passed_over:
        count = f"{len(passed_over)} file{'s' if len(passed_over) > 1 else ''}"
        warn("passed over %s that can't be read as text: %s", count, _printable(named))
    return copies, {"passed_over": len(passed_over), "unreadable": len(unreadable)}


def _printable(message: str) -> str:
    return one_line(message).encode("utf-8", "backslashreplace").decode()


def _unsuitable(path: Path, name: str) -> str | None:
    """Describe a file of an unknown suffix that is not text; None if it is, or can't be read."""
    if format_of(name) or split_suffixes(name)[1]:
        return None
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return None
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError:
        return None  # _copy reports it
    detected = detect(name, head)
    if detected.format == "unsupported":
        return f"{name} ({detected.detail})"
    return name if detected.format is None and not compression_of(head) else None


def _locate(source: Path) -> tuple[Path, str | None]:
    """Return the folder to search, and the name of the file if the path is a single file."""
    try:
        mode = source.stat().st_mode
        if stat.S_ISDIR(mode):
            os.scandir(source).close()
            return source, None
        if stat.S_ISREG(mode):
            return source.parent, source.name
        problem = " is neither a file nor a folder; choose another path"
    except FileNotFoundError:
        problem = " does not exist; give a file or folder (absolute for queued experiments)"
    except OSError as error:
        problem = f": {error.strerror}; try another path"
    raise AtlasError(f"corpus.files.path: {source}{problem}")


def _walk(base: Path, skip: Skip) -> Iterator[str]:
    """Yield the names of the files below a folder.

    Linked folders come last, so that files are found under their own path first.
    """
    seen: set[tuple[int, int]] = set()
    pending = [""]
    links: list[str] = []
    while pending or links:
        folder = pending.pop() if pending else links.pop(0)
        try:
            status = (base / folder).stat()
            identity = (status.st_dev, status.st_ino)
            if identity in seen:
                skip(folder, "a link to a folder that is already part of the corpus")
                continue
            seen.add(identity)
            with os.scandir(base / folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            skip(folder, error.strerror or type(error).__name__)
            continue
        subfolders = []
        for entry in entries:
            if entry.name.startswith("."):
                continue
            name = f"{folder}/{entry.name}" if folder else entry.name
            if entry.name.encode(errors="ignore").decode() != entry.name:
                skip(name, "its name is not UTF-8; rename it")
            elif entry.is_dir(follow_symlinks=False):
                subfolders.append(name)
            elif entry.is_symlink() and os.path.isdir(entry.path):  # noqa: PTH112 - can't raise
                links.append(name)
            else:
                yield name
        pending += reversed(subfolders)


class _Packs:
    """Writes packs of small files."""

    def __init__(self, source: Path, folder: Path) -> None:
        self._source = source
        self._folder = folder
        self._files: list[tuple[str, bytes]] = []
        self._bytes = 0
        self._written: list[RawFile] = []

    def add(self, name: str, data: bytes) -> None:
        """Add a file."""
        if self._bytes + len(data) > PACK:
            self._write()
        self._files.append((name, data))
        self._bytes += len(data)

    def finish(self) -> list[RawFile]:
        """Write the last pack; return all."""
        self._write()
        return self._written

    def _write(self) -> None:
        if self._files:
            name = write_pack(self._folder, len(self._written), self._files)
            pack = RawFile.describe(self._folder, name, self._source.as_posix(), LICENCE)
            self._written.append(replace(pack, packed=len(self._files)))
            self._files, self._bytes = [], 0


def _read_small(source: Path) -> bytes | None:
    """Read a regular file of at most SMALL bytes; None for all others, which _copy handles."""
    try:
        if not stat.S_ISREG(source.stat().st_mode):
            return None
        with source.open("rb", buffering=0) as file:
            data = file.read(SMALL + 1)
            return data if len(data) == os.fstat(file.fileno()).st_size <= SMALL else None
    except OSError:
        return None


class _NotCopiedError(Exception):
    """A file can't be copied; the message says why."""


def _copy(source: Path, copy: Path) -> tuple[str, int]:
    """Copy a file; return its SHA-256 and size."""
    try:
        if not stat.S_ISREG(source.stat().st_mode):
            raise _NotCopiedError("it is a pipe, a socket or a device")
        copy.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(TRIES):
            if unchanged := _copy_unchanged(source, copy):
                return unchanged
            copy.unlink()
    except FileExistsError:
        raise _NotCopiedError("its name equals that of another file on this disk") from None
    except OSError as error:
        with contextlib.suppress(OSError):  # its name can be too long for this disk
            copy.unlink()
        if error.errno in NO_ROOM:
            raise
        raise _NotCopiedError(error.strerror or type(error).__name__) from None
    raise _NotCopiedError("it changes while it is read; wait until it is complete")


def _copy_unchanged(source: Path, copy: Path) -> tuple[str, int] | None:
    """Copy a file; return its SHA-256 and size, None if it changed meanwhile."""
    with source.open("rb") as original, copy.open("xb") as out:
        before = os.fstat(original.fileno())
        hashed = _Hashed(out)
        shutil.copyfileobj(original, hashed)
        after = os.fstat(original.fileno())
        unchanged = before.st_mtime_ns == after.st_mtime_ns
        if unchanged and before.st_size == after.st_size == out.tell():
            return hashed.sha256.hexdigest(), after.st_size
    return None


class _Hashed:
    """A file that is hashed while it is written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()

    def write(self, data: bytes) -> int:
        """Write and hash."""
        self.sha256.update(data)
        return self._file.write(data)
