"""Fetch the corpus named in params.yaml into a folder of raw files with a manifest."""

import contextlib
import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote, urlsplit

import yaml

from atlas.corpora.arithmetic import write_arithmetic, write_modular
from atlas.corpora.download import Download, download
from atlas.corpora.local_files import copy_files
from atlas.corpora.manifest import RawFile, write_manifest
from atlas.corpora.python_docs import LICENCE, URL, write_python_docs
from atlas.corpora.stories import write_stories
from atlas.errors import AtlasError
from atlas.params.schema import CorpusParams
from atlas.pipeline.files import write_records

Metrics = dict[str, int | str]
REGISTRY = Path(__file__).with_name("registry.yaml")  # the corpora that can be downloaded by name
# Locations of the text of a book at Project Gutenberg; older books only have the older ones.
BOOK_URLS = (
    "https://www.gutenberg.org/cache/epub/{number}/pg{number}.txt",
    "https://www.gutenberg.org/files/{number}/{number}-0.txt",
    "https://www.gutenberg.org/files/{number}/{number}-8.txt",
    "https://www.gutenberg.org/files/{number}/{number}.txt",
)
# The corpora that are created on this machine.
GENERATORS: Mapping[str, Callable[[CorpusParams, Path], list[str]]] = {
    "python-docs": lambda _, folder: write_python_docs(folder),
    "arithmetic": lambda corpus, folder: write_arithmetic(folder, **corpus.arithmetic.model_dump()),
    "modular": lambda corpus, folder: write_modular(folder, **corpus.modular.model_dump()),
    "stories": lambda corpus, folder: write_stories(folder, **corpus.stories.model_dump()),
}
SECTION_COLUMN = "text"


@dataclass(frozen=True)
class Corpus:
    """A corpus of the registry."""

    description: str
    licence: str
    files: tuple[Download, ...]
    joined: Download | None = None  # the file that the downloads are joined into


@cache
def corpora() -> Mapping[str, Corpus]:
    """Load the registry by name."""
    entries: dict[str, dict[str, Any]] = yaml.safe_load(REGISTRY.read_text(encoding="utf-8"))
    return {
        name: Corpus(
            entry["description"],
            entry["licence"],
            tuple(_listed(file, entry.get("base", "")) for file in entry["files"]),
            Download(urls=(), **entry["joined"]) if "joined" in entry else None,
        )
        for name, entry in entries.items()
    }


def _listed(file: dict[str, Any], base: str) -> Download:
    url = file.get("url") or base + quote(file.get("path", file["name"]))
    return Download(file["name"], (url,), file.get("sha256"), file.get("bytes"))


def book(number: int) -> Download:
    """Return a book of Project Gutenberg: the pinned file, or the current one on the site."""
    name = f"pg{number}.txt"
    pinned = {file.name: file for file in corpora()["gutenberg"].files}
    urls = tuple(url.format(number=number) for url in BOOK_URLS)
    return pinned.get(name, Download(name, urls))


def fetch_corpus(
    corpus: CorpusParams, folder: Path, mirror: str | None, unfinished: Path
) -> Metrics:
    """Fill a new folder with the raw files of a corpus and their manifest; return the metrics.

    Archives are kept as they are; clean reads their contents as streams. A ``mirror`` is tried
    before the web. ``unfinished`` keeps interrupted downloads.
    """
    folder.mkdir(parents=True)
    metrics: Metrics = {"corpus": corpus.name}
    if corpus.name == "files":
        copies, left_out = copy_files(Path(corpus.files.path), folder)
        urls = {name: source.as_posix() for name, source in copies.items()}
        licence = "the user's own"
        metrics |= left_out
    elif corpus.name in GENERATORS:
        written = GENERATORS[corpus.name](corpus, folder)
        is_python = corpus.name == "python-docs"
        url, licence = (URL, LICENCE) if is_python else ("made by Atlas", "CC0-1.0")
        urls = dict.fromkeys(written, url)
    else:
        urls = _download(corpus, folder, mirror, unfinished)
        licence = corpora()[corpus.name].licence
    files = [RawFile.describe(folder, name, url, licence) for name, url in urls.items()]
    write_manifest(folder, corpus.name, files)
    return metrics | {"files": len(files), "bytes": sum(file.bytes for file in files)}


def _download(
    corpus: CorpusParams, folder: Path, mirror: str | None, unfinished: Path
) -> dict[str, str]:
    """Download a corpus; return the original URL of each file by name."""
    known = corpora()[corpus.name]
    if known.joined:
        return _join_sections(known, known.joined, folder, mirror, unfinished)
    files: Sequence[Download] = known.files
    if corpus.name == "gutenberg":
        files = [book(number) for number in corpus.gutenberg.books]
    return download(files, folder, mirror, unfinished)


def _join_sections(
    corpus: Corpus, joined: Download, folder: Path, mirror: str | None, unfinished: Path
) -> dict[str, str]:
    """Join FairytaleQA's sections, one CSV file per tale, into the file ``joined``.

    A mirror can provide the joined file.
    """
    url = corpus.files[0].urls[0].rpartition("/")[0]
    if mirror:
        with contextlib.suppress(AtlasError):  # the mirror can have the sections instead
            download([joined], folder, mirror, unfinished)
            return {joined.name: url}
    with TemporaryDirectory(dir=folder) as sections:
        download(corpus.files, Path(sections), mirror, unfinished)
        records = (
            {
                "id": file.name.removesuffix("-story.csv"),
                "source": _path_in_repository(file.urls[0]),
                "text": "\n\n".join(_sections(Path(sections) / file.name)),
            }
            for file in corpus.files
        )
        write_records(folder / joined.name, records)
    return {joined.name: url}


def _sections(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        for row in csv.DictReader(file):
            if SECTION_COLUMN not in row:
                raise AtlasError(
                    f"{path.name}: no column {SECTION_COLUMN}; the file changed upstream, "
                    "choose another corpus.name"
                )
            yield row[SECTION_COLUMN].strip()


def _path_in_repository(url: str) -> str:
    """Convert the URL of a raw file on GitHub to ``owner/repository:path``."""
    owner, repository, _, path = urlsplit(url).path.lstrip("/").split("/", 3)
    return f"{owner}/{repository}:{path}"
