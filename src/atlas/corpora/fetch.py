"""Brings the corpus that params.yaml names into a folder of raw files with a manifest."""

from pathlib import Path

from atlas.corpora.download import download
from atlas.corpora.local_files import copy_files
from atlas.corpora.manifest import RawFile, write_manifest
from atlas.corpora.python_docs import LICENCE, URL, write_python_docs
from atlas.corpora.registry import CORPORA
from atlas.params import CorpusParams


def fetch_corpus(
    corpus: CorpusParams, folder: Path, mirror: str | None, unfinished: Path
) -> dict[str, int | str]:
    """Fills ``folder`` with the raw files of a corpus and their manifest.

    Args:
        corpus: which one.
        folder: where its files go; created.
        mirror: a folder or URL in which downloads are looked for first, None for none.
        unfinished: folder that keeps the beginnings of broken downloads.

    Returns:
        The metrics of the stage: corpus, files, those passed over for their suffix, bytes.

    Raises:
        AtlasError: a file is not to be had, or not the one that was expected.
    """
    folder.mkdir(parents=True)
    passed_over = 0
    if corpus.name == "python-docs":
        names = write_python_docs(folder)
        files = [RawFile.of(folder, name, URL, LICENCE) for name in names]
    elif corpus.name == "files":
        copies, passed_over = copy_files(Path(corpus.path), folder)
        files = [
            RawFile.of(folder, name, source.as_posix(), "the user's own")
            for name, source in copies.items()
        ]
    else:
        known = CORPORA[corpus.name]
        for file in known.files:
            download(file, folder, mirror, unfinished)
        files = [RawFile.of(folder, file.name, file.url, known.licence) for file in known.files]
    write_manifest(folder, corpus.name, files)
    return {
        "corpus": corpus.name,
        "files": len(files),
        "passed_over": passed_over,
        "bytes": sum(file.bytes for file in files),
    }
