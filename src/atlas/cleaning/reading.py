"""Raw files to documents: texts and JSON lines, gzipped or not, in any encoding."""

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from atlas.cleaning.decoding import NotTextError, decode
from atlas.cleaning.documents import Document

MOST_HELD_BACK = 1000  # lines without a document after which a file is none of JSONL


@dataclass(frozen=True)
class Rejection:
    """What was left out, and why."""

    id: str
    reason: str
    detail: str = ""


@dataclass(frozen=True)
class UnreadableFile:
    """A file that is not text, or ends too early; ``id`` is its name."""

    id: str
    reason: str
    detail: str


def read_raw(
    path: Path, name: str, guesses: Counter[str]
) -> Iterator[Document | Rejection | UnreadableFile]:
    """Reads a raw file: a text is one document, each line of JSONL is one.

    Args:
        path: the file; ``.gz`` is unpacked, then the suffix below it decides.
        name: what the ids of its documents begin with.
        guesses: counts the files of each encoding that had to be guessed; added to.
    """
    try:
        if path.name.lower().removesuffix(".gz").endswith(".jsonl"):
            yield from _read_jsonl(path, name)
        else:
            with _open(path) as file:
                decoded = decode(file.read())
            guesses[decoded.encoding] += decoded.guessed
            yield Document(name, name, decoded.text)
    except NotTextError as error:
        yield UnreadableFile(name, "not_text", str(error))
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        yield UnreadableFile(name, "broken_gzip", str(error))


def _read_jsonl(path: Path, name: str) -> Iterator[Document | Rejection]:
    """The documents of a file and a rejection for each line that is none.

    Raises:
        NotTextError: the file holds lines, but not one document, among the first thousand.
    """
    held_back: list[Rejection] = []
    found = False
    with _open(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            result = _parse_line(line, f"{name}:{number}", name)
            if found:
                yield result
            elif isinstance(result, Rejection):
                held_back.append(result)
            else:
                found = True
                yield from held_back
                yield result
            if not found and len(held_back) == MOST_HELD_BACK:
                break
    if held_back and not found:
        first = held_back[0]
        raise NotTextError(f"no line is a document; {first.id}: {first.reason}, {first.detail}")


def _parse_line(line: bytes, identity: str, name: str) -> Document | Rejection:
    try:
        record = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return Rejection(identity, "not_utf8", str(error))
    except (ValueError, RecursionError) as error:
        return Rejection(identity, "not_json", str(error))
    if not isinstance(record, dict) or not isinstance(record.get("text"), str):
        return Rejection(identity, "no_text", 'needs an object with a string under "text"')
    source = record.get("source")
    return Document(identity, source if isinstance(source, str) else name, record["text"])


def _open(path: Path) -> BinaryIO:
    if path.name.lower().endswith(".gz"):
        return cast(BinaryIO, gzip.open(path, "rb"))
    return path.open("rb")
