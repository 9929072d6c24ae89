"""The corpus `files`: the user's own texts, a file or a folder of them.

A folder of one's own holds all kinds of things. What cannot be read is left out with a note,
and the rest is unharmed. Files are copied as they are: archives stay closed.

The kinds of files that a corpus may consist of, by their suffix.
"""

import contextlib
import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from atlas.errors import NO_ROOM, AtlasError, one_line

PACKED = ".gz"
Format = Literal["text", "jsonl", "csv", "parquet", "zip"]
FORMATS: dict[str, Format] = {
    ".txt": "text",
    ".text": "text",
    ".md": "text",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".zip": "zip",
}
PACKABLE = tuple(suffix for suffix, kind in FORMATS.items() if kind not in ("parquet", "zip"))


def format_of(name: str) -> Format | None:
    """How a file is read; what is gzipped by the suffix below, text if there is none."""
    lowered = name.lower()
    plain = lowered.removesuffix(PACKED)
    for suffix, kind in FORMATS.items():
        if plain.endswith(suffix):
            return None if plain != lowered and suffix not in PACKABLE else kind
    return "text" if plain != lowered else None


SUFFIXES = (*FORMATS, *(f"{suffix}{PACKED}" for suffix in PACKABLE))
TRIES = 2  # for a file that is being written to

Note = Callable[[str, str], None]  # takes the name of what is left out, and the reason


@dataclass(frozen=True)
class Copies:
    """What was copied from the user's files.

    Attributes:
        files: for each copy its name below the folder, and the file that it came from.
        passed_over: files that do not count for their suffix.
        unreadable: files and folders that were left out with a note.
    """

    files: dict[str, Path]
    passed_over: int
    unreadable: int


class _UnreadableError(Exception):
    """A file cannot be copied; the message says why."""


def copy_files(source: Path, folder: Path) -> Copies:
    """Copies every text file below ``source`` into ``folder``, byte for byte.

    Hidden files, and those in hidden folders, do not count as part of the corpus. Links are
    followed, but no folder is read twice.

    Raises:
        AtlasError: there is no such path, no text file in it, or none that can be read.
    """
    base, found = _entries(source)
    notes: list[str] = []

    def note(name: str, reason: str) -> None:
        notes.append(name)
        text = one_line(f"note: {base / name} left out: {reason}")
        print(text.encode("utf-8", "backslashreplace").decode(), file=sys.stderr)

    files = sorted(_walk(base, note) if found is None else [found])
    chosen = [name for name in files if name.lower().endswith(SUFFIXES)]
    sources = {}
    for name in chosen:
        try:
            _copy(base / name, folder / name)
            sources[name] = base / name
        except _UnreadableError as reason:
            note(name, str(reason))
    if not sources:
        if notes:
            raise AtlasError(
                f"corpus.files.path: nothing in {source} could be read ({len(notes)} skipped, "
                "listed above); fix that, or choose another corpus.name"
            )
        raise AtlasError(
            f"corpus.files.path: {source} holds no {', '.join(PACKABLE)} (or .gz of one), "
            ".parquet or .zip; put your texts there, or choose another corpus.name (a queued "
            "experiment runs in a copy that has only what git knows: give it an absolute path)"
        )
    return Copies(sources, len(files) - len(chosen), len(notes))


def _entries(source: Path) -> tuple[Path, str | None]:
    """The folder to look in, and the one name to take from it if the path is a file.

    Raises:
        AtlasError: the path is missing, cannot be read, or is neither file nor folder.
    """
    try:
        mode = source.stat().st_mode
        if stat.S_ISDIR(mode):
            os.scandir(source).close()
            return source, None
    except FileNotFoundError:
        raise AtlasError(
            f"corpus.files.path: {source} does not exist; give a file or folder "
            "(an absolute path where experiments are queued)"
        ) from None
    except OSError as error:
        raise AtlasError(
            f"corpus.files.path: {source}: {error.strerror}; try another path"
        ) from None
    if not stat.S_ISREG(mode):
        raise AtlasError(
            f"corpus.files.path: {source} is neither file nor folder; give one of them"
        )
    return source.parent, source.name


def _walk(base: Path, note: Note) -> Iterator[str]:
    """The names of the files below a folder.

    Folders that are links come last, so that a file has its own name and not that of a link
    to its folder.
    """
    seen: set[tuple[int, int]] = set()
    waiting = [""]
    links: list[str] = []
    while waiting or links:
        folder = waiting.pop() if waiting else links.pop(0)
        try:
            status = (base / folder).stat()
            identity = (status.st_dev, status.st_ino)
            if identity in seen:
                note(folder, "a link to a folder that is part of the corpus already")
                continue
            seen.add(identity)
            with os.scandir(base / folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            note(folder, _reason(error))
            continue
        inner = []
        for entry in entries:
            if entry.name.startswith("."):
                continue
            name = f"{folder}/{entry.name}" if folder else entry.name
            if not _is_utf8(entry.name):
                note(name, "its name is not UTF-8; rename it")
            elif entry.is_dir(follow_symlinks=False):
                inner.append(name)
            elif entry.is_symlink() and _leads_to_folder(base / name):
                links.append(name)
            else:
                yield name
        waiting += reversed(inner)


def _copy(source: Path, copy: Path) -> None:
    """Copies a file that stays the same meanwhile.

    Raises:
        _UnreadableError: it cannot be read, is no plain file, or does not stay the same.
    """
    try:
        if not stat.S_ISREG(source.stat().st_mode):
            raise _UnreadableError("it is no plain file but a pipe, a socket or a device")
        copy.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(TRIES):
            if _copied_unchanged(source, copy):
                return
            copy.unlink()
    except FileExistsError:
        raise _UnreadableError("this disk holds its name for that of another file") from None
    except OSError as error:
        with contextlib.suppress(OSError):  # its name may be longer than this disk allows
            copy.unlink()
        if error.errno in NO_ROOM:
            raise
        raise _UnreadableError(_reason(error)) from None
    raise _UnreadableError("it changes while it is read; wait for what writes it")


def _copied_unchanged(source: Path, copy: Path) -> bool:
    """Copies a file, and says whether it was the same before and after."""
    with source.open("rb") as original, copy.open("xb") as out:
        before = os.fstat(original.fileno())
        shutil.copyfileobj(original, out)
        after = os.fstat(original.fileno())
        unchanged = before.st_mtime_ns == after.st_mtime_ns
        return unchanged and before.st_size == after.st_size == out.tell()


def _leads_to_folder(link: Path) -> bool:
    try:
        return link.is_dir()
    except OSError:  # is_dir() answers for links that lead nowhere, not for those it may not follow
        return False


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__
