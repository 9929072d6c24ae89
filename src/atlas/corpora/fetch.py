"""Brings the corpus that params.yaml names into a folder of raw files with a manifest."""

from collections.abc import Callable, Mapping
from pathlib import Path

from atlas.corpora.arithmetic import write_arithmetic
from atlas.corpora.download import download
from atlas.corpora.fairytales import join_sections
from atlas.corpora.local_files import copy_files
from atlas.corpora.manifest import RawFile, write_manifest
from atlas.corpora.modular import write_modular
from atlas.corpora.python_docs import LICENCE, URL, write_python_docs
from atlas.corpora.registry import book, corpora
from atlas.corpora.stories import write_stories
from atlas.params.schema import CorpusParams

Metrics = dict[str, int | str]
MADE = "made by Atlas"
# What is made here: who writes it, from which URL, under which licence.
MAKERS: Mapping[str, tuple[Callable[[CorpusParams, Path], list[str]], str, str]] = {
    "python-docs": (lambda _, folder: write_python_docs(folder), URL, LICENCE),
    "arithmetic": (
        lambda corpus, folder: write_arithmetic(
            folder, corpus.arithmetic.examples, corpus.arithmetic.seed
        ),
        MADE,
        "CC0-1.0",
    ),
    "modular": (
        lambda corpus, folder: write_modular(
            folder, corpus.modular.operation, corpus.modular.modulus
        ),
        MADE,
        "CC0-1.0",
    ),
    "stories": (
        lambda corpus, folder: write_stories(folder, corpus.stories.examples, corpus.stories.seed),
        MADE,
        "CC0-1.0",
    ),
}


def fetch_corpus(
    corpus: CorpusParams, folder: Path, mirror: str | None, unfinished: Path
) -> Metrics:
    """Fills ``folder`` with the raw files of a corpus and their manifest.

    Archives are kept as they came: clean reads what is in them as a stream, so nothing is
    unpacked that could land anywhere.

    Args:
        corpus: which one.
        folder: where its files go; created.
        mirror: a folder or URL in which downloads are looked for first, None for none.
        unfinished: folder that keeps the beginnings of broken downloads.

    Returns:
        The metrics of the stage: corpus, files, bytes, and of one's own files those that were
        passed over for their suffix and those that can't be read.

    Raises:
        AtlasError: a file is not to be had, or not the one that was expected.
    """
    folder.mkdir(parents=True)
    metrics: Metrics = {"corpus": corpus.name}
    if corpus.name == "files":
        copies = copy_files(Path(corpus.files.path), folder)
        files = [
            RawFile.of(folder, name, source.as_posix(), "the user's own")
            for name, source in copies.files.items()
        ]
        metrics |= {"passed_over": copies.passed_over, "unreadable": copies.unreadable}
    elif corpus.name in MAKERS:
        make, url, licence = MAKERS[corpus.name]
        files = [RawFile.of(folder, name, url, licence) for name in make(corpus, folder)]
    else:
        files = _download(corpus, folder, mirror, unfinished)
    write_manifest(folder, corpus.name, files)
    return metrics | {"files": len(files), "bytes": sum(file.bytes for file in files)}


def _download(
    corpus: CorpusParams, folder: Path, mirror: str | None, unfinished: Path
) -> list[RawFile]:
    known = corpora()[corpus.name]
    if known.joined:
        urls = join_sections(known, known.joined, folder, mirror, unfinished)
    elif corpus.name == "gutenberg":
        books = [book(number) for number in corpus.gutenberg.books]
        urls = download(books, folder, mirror, unfinished)
    else:
        urls = download(list(known.files), folder, mirror, unfinished)
    return [RawFile.of(folder, name, url, known.licence) for name, url in urls.items()]
