"""What an exported model says of itself: whose it is, what it was trained on, under which terms."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from atlas.corpora.manifest import Manifest, RawFile
from atlas.errors import one_line

MOST_SOURCES = 20  # addresses of texts that are listed


@dataclass(frozen=True)
class TrainingData:
    """The corpus that a model was trained on.

    Attributes:
        corpus: its name.
        files: how many it was fetched as.
        bytes: of these.
        licences: of its texts, the commonest first.
        urls: where they came from, of what came over the network; at most ``MOST_SOURCES``.
    """

    corpus: str
    files: int
    bytes: int
    licences: tuple[str, ...]
    urls: tuple[str, ...]

    @classmethod
    def read(cls, manifest: Path) -> "TrainingData":
        """Reads the manifest.json that fetch wrote.

        Paths of the user's own files are nobody else's business, and left out.

        Raises:
            AtlasError: there is none.
        """
        found = Manifest.read(manifest)
        files = found.files
        return cls(
            corpus=found.corpus,
            files=len(files),
            bytes=sum(file.bytes for file in files),
            licences=_commonest(files),
            urls=tuple(dict.fromkeys(_addresses(files)))[:MOST_SOURCES],
        )

    def describe(self) -> str:
        """One sentence for people."""
        licences = ", ".join(self.licences) or "unknown"
        count = "1 file" if self.files == 1 else f"{self.files} files"
        return f"{self.corpus}: {count}, {self.bytes:,} bytes; licence: {licences}"


@dataclass(frozen=True)
class About:
    """What a model says of itself; what is empty is left out.

    Attributes:
        name: of the model, and of its files.
        author: who trained it.
        licence: of its weights, as an SPDX identifier.
        description: what it is.
        source: the address at which it, or what made it, can be had.
        data: that it was trained on.
    """

    name: str
    author: str = ""
    licence: str = ""
    description: str = ""
    source: str = ""
    data: TrainingData | None = None

    def __post_init__(self) -> None:
        """Keeps each text to one line, without quotes: it stands in Markdown and between quotes."""
        for key in ("author", "licence", "description", "source"):
            object.__setattr__(self, key, one_line(getattr(self, key)).replace('"', "'"))


def _commonest(files: Iterable[RawFile]) -> tuple[str, ...]:
    return tuple(licence for licence, _ in Counter(f.licence for f in files).most_common())


def _addresses(files: Iterable[RawFile]) -> Iterable[str]:
    return (file.url for file in files if file.url.startswith(("https://", "http://")))
