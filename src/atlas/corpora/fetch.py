"""Fetch the corpus named in params.yaml into a folder of raw files with a manifest."""

import contextlib
import csv
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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
from atlas.errors import AtlasError, Stopped
from atlas.params.mixture import label_of
from atlas.params.schema import CorpusParams, FilesParams, MixEntry
from atlas.pipeline.files import remove, write_records

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

logger = logging.getLogger(__name__)


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
    metrics: Metrics = {"corpus": corpus.name}
    if corpus.mix is None:
        files, counts = _fetch_one(corpus, folder, mirror, unfinished)
        name = str(corpus.name)
    else:
        files, counts = _fetch_mix(corpus, corpus.mix, folder, mirror, unfinished)
        fetched = {file.corpus for file in files}
        names = (entry.name for entry in corpus.mix if label_of(entry) in fetched)
        name = " + ".join(dict.fromkeys(names))  # without paths, which are private
    write_manifest(folder, name, files)
    number = sum(file.packed or 1 for file in files)
    return metrics | counts | {"files": number, "bytes": sum(file.bytes for file in files)}


def _fetch_one(
    corpus: CorpusParams, folder: Path, mirror: str | None, unfinished: Path
) -> tuple[list[RawFile], dict[str, int]]:
    """Fetch one corpus into a new folder; return its files, and counts of those left out."""
    folder.mkdir(parents=True)
    if corpus.name == "files":
        return copy_files(Path(corpus.files.path), folder)
    if corpus.name in GENERATORS:
        written = GENERATORS[corpus.name](corpus, folder)
        is_python = corpus.name == "python-docs"
        url, licence = (URL, LICENCE) if is_python else ("made by Atlas", "CC0-1.0")
        urls = dict.fromkeys(written, url)
    else:
        urls = _download(corpus, folder, mirror, unfinished)
        licence = corpora()[corpus.name].licence
    return [RawFile.describe(folder, name, url, licence) for name, url in urls.items()], {}


def _fetch_mix(
    corpus: CorpusParams,
    mix: Sequence[MixEntry],
    folder: Path,
    mirror: str | None,
    unfinished: Path,
) -> tuple[list[RawFile], dict[str, int]]:
    """Fetch each corpus of a mix into a subfolder with its label.

    A corpus that fails ends the stage, unless it is optional. Downloads come last, so that the
    mistake in a path costs none.
    """
    found: dict[str, list[RawFile]] = {}
    counts = Counter[str]()
    for entry in sorted(mix, key=lambda entry: entry.name in corpora()):
        label = label_of(entry)
        _warn_if_unwatched(entry, corpus.files.path)
        values = {"name": entry.name, "files": FilesParams(path=entry.path or corpus.files.path)}
        single = corpus.model_copy(update=values)
        try:
            files, left_out = _fetch_one(single, folder / label, mirror, unfinished / label)
        except Stopped:
            raise
        except AtlasError as error:
            reason = str(error).removeprefix("corpus.files.path: ").removeprefix("corpus.name: ")
            if not entry.optional:
                raise AtlasError(f"corpus.mix: {label}: {reason}") from error
            logger.warning("corpus.mix: going on without %s: %s", label, reason)
            remove(folder / label)
            continue
        found[label] = [replace(file, name=f"{label}/{file.name}", corpus=label) for file in files]
        counts.update(left_out)
    if not found:
        raise AtlasError("corpus.mix: none of the corpora could be fetched (see above)")
    files = [file for entry in mix for file in found.get(label_of(entry), [])]
    for label in found:
        counts[f"files.{label}"] = len(found[label])
        counts[f"bytes.{label}"] = sum(file.bytes for file in found[label])
    return files, dict(counts)


def _warn_if_unwatched(entry: MixEntry, watched: str) -> None:
    """Warn about a path whose changes DVC doesn't notice, because dvc.yaml can't list it."""
    if entry.path and not Path(entry.path).absolute().is_relative_to(Path(watched).absolute()):
        logger.warning(
            "corpus.mix: %s is outside of corpus.files.path (%s), so DVC does not notice changes "
            "in it: run `dvc repro -f fetch` after one",
            entry.path,
            watched,
        )


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
