"""Mirrors: a folder or URL in which downloads are looked for before the web.

A mirror holds files under their names, under their sha256, or anywhere if its sources.csv lists
them (columns file and sha256, and perhaps url). A file may be gzipped there.
"""

import csv
import io
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import quote, urlsplit

import httpx

from atlas.corpora.registry import Download
from atlas.errors import AtlasError

INDEX = "sources.csv"
TIMEOUT = httpx.Timeout(30, connect=10)


def is_url(place: str) -> bool:
    """Whether a place is on the web; it is a path otherwise."""
    return urlsplit(place).scheme.lower() in ("http", "https")


@dataclass(frozen=True)
class Mirror:
    """A mirror and its index.

    Attributes:
        root: a folder or URL, without a slash at the end.
        rows: of its index; none if it has no index.
    """

    root: str
    rows: list[dict[str, str]] = field(default_factory=list)

    @classmethod
    def open(cls, root: str) -> "Mirror":
        """Reads the index of a mirror.

        Raises:
            AtlasError: it is neither a folder nor a URL.
        """
        root = root.rstrip("/") or root
        if not is_url(root) and not Path(root).is_dir():
            raise AtlasError(
                f"ATLAS_MIRROR={root}: no such folder; give one that holds your downloads, or a URL"
            )
        return cls(root, _index(root))

    def places(self, file: Download) -> list[str]:
        """Where the mirror may have a file: first by its index, then by checksum and name."""
        names = {file.name, *(PurePosixPath(urlsplit(url).path).name for url in file.urls)}
        found = [row["file"] for row in self.rows if row.get("file") and _is_of(row, file, names)]
        guesses = [file.sha256] if file.sha256 else []
        guesses += [file.name, *sorted(names - {file.name})]
        found += [guess + suffix for guess in guesses for suffix in ("", ".gz")]
        if is_url(self.root):
            return [f"{self.root}/{quote(name)}" for name in dict.fromkeys(found)]
        paths = [Path(self.root) / name for name in dict.fromkeys(found)]
        return [str(path) for path in paths if path.is_file()]


def _is_of(row: dict[str, str], file: Download, names: set[str]) -> bool:
    """Whether a row of the index is about a file: by checksum, else by URL or name."""
    if file.sha256:
        return (row.get("sha256") or "").lower() == file.sha256
    return row.get("url") in file.urls or PurePosixPath(row["file"]).name in names


def _index(root: str) -> list[dict[str, str]]:
    place = f"{root}/{INDEX}"
    try:
        if is_url(root):
            response = httpx.get(place, timeout=TIMEOUT, follow_redirects=True)
            response.raise_for_status()
            text = response.text
        else:
            text = Path(place).read_text(encoding="utf-8-sig")
        return list(csv.DictReader(io.StringIO(text)))
    except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeDecodeError, csv.Error):
        return []  # a mirror need not have an index
