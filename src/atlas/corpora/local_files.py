"""The corpus `files`: the user's own texts, a file or a folder.

Files are chosen by suffix and copied byte for byte; archives stay closed. Files that can't be
read are skipped with a warning.
"""

import contextlib
import logging
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from atlas.errors import NO_ROOM, AtlasError, one_line

GZIP_SUFFIX = ".gz"
Format = Literal["text", "jsonl", "csv", "parquet", "zip"]
FORMATS: dict[str, Format] = {
    **dict.fromkeys((".txt", ".text", ".md"), "text"),
    **dict.fromkeys((".jsonl", ".ndjson"), "jsonl"),
    **dict.fromkeys((".csv", ".tsv"), "csv"),
    ".parquet": "parquet",
    ".zip": "zip",
}
GZIPPABLE = tuple(suffix for suffix, kind in FORMATS.items() if kind not in ("parquet", "zip"))


def format_of(name: str) -> Format | None:
    """Return the format by suffix, None if unknown; ``name.gz`` is gzipped text."""
    plain = name.lower().removesuffix(GZIP_SUFFIX)
    packed = plain != name.lower()
    for suffix, kind in FORMATS.items():
        if plain.endswith(suffix):
            return None if packed and suffix not in GZIPPABLE else kind
    return "text" if packed else None


SUFFIXES = (*FORMATS, *(f"{suffix}{GZIP_SUFFIX}" for suffix in GZIPPABLE))
TRIES = 2  # for a file that changes while it is copied

Skip = Callable[[str, str], None]  # takes the name of a skipped file or folder, and the reason


def copy_files(source: Path, folder: Path) -> tuple[dict[str, Path], dict[str, int]]:
    """Copy every text file below ``source`` into ``folder``, byte for byte.

    Hidden files and folders are ignored. Links are followed, but no folder is read twice. Return
    the source of each copy by name, and the numbers of files that were passed over or unreadable.
    """
    base, single = _locate(source)
    unreadable: list[str] = []

    def skip(name: str, reason: str) -> None:
        unreadable.append(name)
        message = one_line(f"{base / name} skipped: {reason}")
        printable = message.encode("utf-8", "backslashreplace").decode()
        logging.getLogger(__name__).warning("%s", printable)

    files = sorted(_walk(base, skip) if single is None else [single])
    chosen = [name for name in files if name.lower().endswith(SUFFIXES)]
    sources = {}
    for name in chosen:
        if reason := _copy(base / name, folder / name):
            skip(name, reason)
        else:
            sources[name] = base / name
    if unreadable and not sources:
        raise AtlasError(
            f"corpus.files.path: nothing in {source} could be read ({len(unreadable)} skipped, "
            "listed above); fix that, or choose another corpus.name"
        )
    if not sources:
        raise AtlasError(
            f"corpus.files.path: {source} contains no {', '.join(GZIPPABLE)} (or .gz of one), "
            ".parquet or .zip; put your texts there, or choose another corpus.name (queued "
            "experiments only see files tracked by git: give an absolute path)"
        )
    return sources, {"passed_over": len(files) - len(chosen), "unreadable": len(unreadable)}


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
            elif os.path.isdir(entry.path):  # noqa: PTH112 - Path.is_dir can raise for a link
                links.append(name)
            else:
                yield name
        pending += reversed(subfolders)


def _copy(source: Path, copy: Path) -> str | None:
    """Copy a file; return the reason if that is impossible."""
    try:
        if not stat.S_ISREG(source.stat().st_mode):
            return "it is a pipe, a socket or a device"
        copy.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(TRIES):
            if _copy_unchanged(source, copy):
                return None
            copy.unlink()
    except FileExistsError:
        return "its name equals that of another file on this disk"
    except OSError as error:
        with contextlib.suppress(OSError):  # its name can be too long for this disk
            copy.unlink()
        if error.errno in NO_ROOM:
            raise
        return error.strerror or type(error).__name__
    return "it changes while it is read; wait until it is complete"


def _copy_unchanged(source: Path, copy: Path) -> bool:
    """Copy a file; return False if it changed meanwhile."""
    with source.open("rb") as original, copy.open("xb") as out:
        before = os.fstat(original.fileno())
        shutil.copyfileobj(original, out)
        after = os.fstat(original.fileno())
        unchanged = before.st_mtime_ns == after.st_mtime_ns
        return unchanged and before.st_size == after.st_size == out.tell()
