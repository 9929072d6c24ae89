"""Atomic files and folders, and their hashes."""

import csv
import hashlib
import io
import json
import os
import shutil
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

CHUNK = 1 << 20  # bytes per read


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal, reading it in bounded memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def crc32(path: Path) -> int:
    """Return the CRC-32 of a file: fast, and enough to detect damage."""
    checksum = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            checksum = zlib.crc32(chunk, checksum)
    return checksum


def files_below(path: Path) -> list[Path]:
    """List the files below a folder in a fixed order, or the file itself."""
    if path.is_dir():
        return sorted(p for p in path.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    return [path]


def partial_path(path: Path) -> Path:
    """Return the hidden path next to a file or folder where it is first written."""
    return path.with_name(f".{path.name}.partial")


def older_path(path: Path) -> Path:
    """Return the path an old folder is moved to while the new one replaces it."""
    return path.with_name(f".{path.name}.old.partial")


def remove(path: Path) -> None:
    """Remove a file or folder if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def put_in_place(partial: Path, final: Path) -> None:
    """Flush a partial file or folder to disk, then rename it to its final name.

    A file replaces its old version in one step. A folder needs two renames, so that at every
    moment one complete version is on disk.
    """
    for path in [partial, *partial.rglob("*")]:
        _fsync(path)
    if partial.is_dir() and final.exists():
        old = older_path(final)
        remove(old)
        final.rename(old)
        partial.rename(final)
        remove(old)
    else:
        partial.replace(final)
    _fsync(final.parent)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    partial = partial_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial.write_text(text, encoding="utf-8", newline="\n")
    put_in_place(partial, path)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write indented JSON atomically."""
    write_text(path, json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_records(path: Path, records: Iterable[Mapping[str, Any]]) -> int:
    """Write records as JSON lines while they arrive; return their number."""
    count = 0
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
            count += 1
    return count


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a table atomically; the keys of its first row name the columns."""
    if not rows:
        raise ValueError(f"{path}: a table without rows has no columns")
    table = io.StringIO()
    writer = csv.DictWriter(table, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, table.getvalue())


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
