"""Files that appear whole or not at all, and their hashes."""

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

CHUNK = 1 << 20  # bytes read at once


def sha256(path: Path) -> str:
    """The SHA-256 of a file as hexadecimal text, read in bounded memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def crc32(path: Path) -> int:
    """The CRC-32 of a file, read in bounded memory: quick, and enough to find damage."""
    checksum = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            checksum = zlib.crc32(chunk, checksum)
    return checksum


def files_below(path: Path) -> list[Path]:
    """The files of a folder and its folders in a fixed order; a file gives itself."""
    if path.is_dir():
        return sorted(p for p in path.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    return [path]


def partial_path(path: Path) -> Path:
    """Where a file or folder is written before it is whole: beside it, hidden."""
    return path.with_name(f".{path.name}.partial")


def older_path(path: Path) -> Path:
    """Where the older version of a folder is while the new one takes its place."""
    return path.with_name(f".{path.name}.old.partial")


def remove(path: Path) -> None:
    """Removes a file or a folder, also where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def put_in_place(partial: Path, final: Path) -> None:
    """Makes what was written beside durable, then moves it to its name.

    A file replaces its older version in one step. A folder does so in two renames, so that
    at every moment one of the two versions is on disk, whole.
    """
    for path in [partial, *partial.rglob("*")]:
        _fsync(path)
    if partial.is_dir():
        if final.exists():
            old = older_path(final)
            remove(old)
            final.rename(old)
            partial.rename(final)
            remove(old)
        else:
            partial.rename(final)
    else:
        partial.replace(final)
    _fsync(final.parent)


def write_text(path: Path, text: str) -> None:
    """Writes a text file that is there whole or not at all."""
    partial = partial_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial.write_text(text, encoding="utf-8", newline="\n")
    put_in_place(partial, path)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Writes JSON that a person can read and that any parser accepts (no NaN).

    Raises:
        ValueError: a number is NaN or infinite.
    """
    write_text(path, json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_records(path: Path, records: Iterable[Mapping[str, Any]]) -> int:
    """Writes JSON lines, an object each, as they come; returns how many."""
    count = 0
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
            count += 1
    return count


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes a table; the keys of its first row name the columns.

    Raises:
        ValueError: there is no row.
    """
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
