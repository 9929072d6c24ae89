"""The corpora that can be downloaded by name, listed in ``registry.yaml``."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

REGISTRY = Path(__file__).with_name("registry.yaml")
# Locations of the text of a book at Project Gutenberg; older books only have the older ones.
BOOK_URLS = (
    "https://www.gutenberg.org/cache/epub/{number}/pg{number}.txt",
    "https://www.gutenberg.org/files/{number}/{number}-0.txt",
    "https://www.gutenberg.org/files/{number}/{number}-8.txt",
    "https://www.gutenberg.org/files/{number}/{number}.txt",
)


@dataclass(frozen=True)
class Download:
    """A file on the web."""

    name: str  # in data/raw
    urls: tuple[str, ...]  # later ones are tried if the earlier ones have no such file
    sha256: str | None = None  # None if unknown
    bytes: int | None = None


@dataclass(frozen=True)
class Corpus:
    """A named corpus."""

    description: str
    licence: str
    files: tuple[Download, ...]
    joined: Download | None = None  # the file that the downloads are joined into


@cache
def corpora() -> Mapping[str, Corpus]:
    """Load the registry by name."""
    entries: dict[str, dict[str, Any]] = yaml.safe_load(REGISTRY.read_text(encoding="utf-8"))
    return {name: _corpus(entry) for name, entry in entries.items()}


def book(number: int) -> Download:
    """Return a book of Project Gutenberg: the pinned file, or the current one on the site."""
    name = f"pg{number}.txt"
    pinned = {file.name: file for file in corpora()["gutenberg"].files}
    urls = tuple(url.format(number=number) for url in BOOK_URLS)
    return pinned.get(name, Download(name, urls))


def _corpus(entry: dict[str, Any]) -> Corpus:
    base = entry.get("base", "")
    joined = entry.get("joined")
    return Corpus(
        description=entry["description"],
        licence=entry["licence"],
        files=tuple(_download(file, base) for file in entry["files"]),
        joined=Download(joined["name"], (), joined["sha256"], joined["bytes"]) if joined else None,
    )


def _download(file: dict[str, Any], base: str) -> Download:
    url = file.get("url") or base + quote(file.get("path", file["name"]))
    return Download(file["name"], (url,), file.get("sha256"), file.get("bytes"))
