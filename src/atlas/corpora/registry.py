"""The corpora that can be downloaded by name. Each URL is immutable, each file pinned."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Download:
    """A file on the web: its name in data/raw, where it is, and what it must be."""

    name: str
    url: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Corpus:
    """A named corpus: what it is, the licence of its text, its files."""

    what: str
    licence: str
    files: tuple[Download, ...]


CORPORA = {
    "shakespeare": Corpus(
        what="tiny Shakespeare: 40,000 lines of the plays, with speaker names",
        licence="public domain",
        files=(
            Download(
                name="tinyshakespeare.txt",
                url=(
                    "https://raw.githubusercontent.com/karpathy/char-rnn/"
                    "6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e/data/tinyshakespeare/input.txt"
                ),
                sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
                bytes=1_115_394,
            ),
        ),
    ),
}
