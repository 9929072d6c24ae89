"""Metadata that exported files carry: name, author, licence, and the training data."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from atlas.corpora.manifest import Manifest
from atlas.errors import one_line

MAX_URLS = 20


@dataclass(frozen=True)
class TrainingData:
    """The corpus a model was trained on.

    Attributes:
        corpus: name of the corpus.
        files: number of raw files.
        bytes: total size of the raw files.
        licences: licences of the texts, most common first.
        urls: the first ``MAX_URLS`` addresses that texts were downloaded from.
    """

    corpus: str
    files: int
    bytes: int
    licences: tuple[str, ...]
    urls: tuple[str, ...]

    @classmethod
    def read(cls, path: Path) -> "TrainingData":
        """Read the manifest.json of the fetch stage.

        Paths of local files are private, so they are left out.

        Raises:
            AtlasError: the manifest is missing or damaged.
        """
        manifest = Manifest.read(path)
        files = manifest.files
        licences = Counter(file.licence for file in files).most_common()
        urls = [file.url for file in files if file.url.startswith(("https://", "http://"))]
        return cls(
            corpus=manifest.corpus,
            files=len(files),
            bytes=sum(file.bytes for file in files),
            licences=tuple(licence for licence, _ in licences),
            urls=tuple(dict.fromkeys(urls))[:MAX_URLS],
        )

    def describe(self) -> str:
        """Describe the corpus in one line, without a full stop."""
        licences = ", ".join(self.licences) or "unknown"
        count = "1 file" if self.files == 1 else f"{self.files} files"
        return f"{self.corpus}: {count}, {self.bytes:,} bytes; licence: {licences}"


@dataclass(frozen=True)
class ModelMetadata:
    """Metadata of a model; empty fields are left out of the files.

    Attributes:
        name: name of the model, and the stem of its files.
        author: who trained it.
        license: license of the weights, as an SPDX identifier.
        description: one sentence.
        source: URL of the model or of the code that made it.
        data: the training data.
    """

    name: str
    author: str | None = None
    license: str | None = None
    description: str | None = None
    source: str | None = None
    data: TrainingData | None = None

    def __post_init__(self) -> None:
        """Make each text one line without double quotes, safe in Markdown and in a Modelfile."""
        for key in ("author", "license", "description", "source"):
            text = one_line(getattr(self, key) or "").replace('"', "'")
            object.__setattr__(self, key, text or None)
