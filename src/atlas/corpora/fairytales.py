"""The tales of FairytaleQA, which upstream divides into sections: joined to a tale each."""

import contextlib
import csv
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from atlas.corpora.download import download
from atlas.corpora.registry import Corpus, Download
from atlas.errors import AtlasError
from atlas.pipeline.files import write_records

COLUMN = "text"
SUFFIX = "-story.csv"


def join_sections(
    corpus: Corpus, joined: Download, folder: Path, mirror: str | None, unfinished: Path
) -> dict[str, str]:
    """Writes the tales as the file ``joined``; takes it as it is where a mirror has it.

    Returns:
        Its name, and the folder on the web that it was made from.

    Raises:
        AtlasError: the sections can't be fetched, or what they come to is another text.
    """
    url = corpus.files[0].urls[0].rpartition("/")[0]
    if mirror:
        with contextlib.suppress(AtlasError):  # it may have the sections instead
            download([joined], folder, mirror, unfinished)
            return {joined.name: url}
    with TemporaryDirectory(dir=folder) as sections:
        download(list(corpus.files), Path(sections), mirror, unfinished)
        write_records(
            folder / joined.name,
            (
                {
                    "id": file.name.removesuffix(SUFFIX),
                    "source": _place_in_repository(file.urls[0]),
                    "text": "\n\n".join(_sections(Path(sections) / file.name)),
                }
                for file in corpus.files
            ),
        )
    return {joined.name: url}


def _sections(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        for row in csv.DictReader(file):
            if COLUMN not in row:
                raise AtlasError(f"{path.name}: no column {COLUMN}: upstream is not what it was")
            yield row[COLUMN].strip()


def _place_in_repository(url: str) -> str:
    """``owner/repository:path`` of a raw file on GitHub."""
    owner, repository, _, path = urlsplit(url).path.lstrip("/").split("/", 3)
    return f"{owner}/{repository}:{path}"
