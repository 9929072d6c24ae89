"""Clean documents on disk: numbered shards of JSON Lines in a folder per split."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import orjson

from atlas.errors import AtlasError

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

Message = dict[str, str]  # "role" (system, user, assistant or tool) and "content"


@dataclass(frozen=True)
class Document:
    """A document: unique id, origin, text."""

    id: str
    source: str
    text: str
    corpus: str | None = None  # its corpus in a mix
    messages: list[Message] | None = None  # of a conversation, whose text renders them

    @property
    def table_source(self) -> str:
        """The source in tables: the corpus in a mix."""
        return self.corpus or self.source

    @classmethod
    def from_line(cls, line: bytes) -> "Document":
        """Parse a line written by ``to_line``."""
        return cls(**orjson.loads(line))

    def to_line(self) -> bytes:
        """Serialize the document as a line of a shard."""
        values: dict[str, Any] = {"id": self.id, "source": self.source, "text": self.text}
        if self.corpus:
            values["corpus"] = self.corpus
        if self.messages:
            values["messages"] = self.messages
        return orjson.dumps(values, option=orjson.OPT_APPEND_NEWLINE)


def render_messages(messages: list[Message]) -> str:
    """Render a conversation as plain text, a paragraph per message."""
    return "\n\n".join(
        f"{message['role'].capitalize()}: {message['content']}" for message in messages
    )


def read_documents(folder: Path) -> Iterator[Document]:
    """Read the documents of a folder of shards in order."""
    for path in shard_paths(folder):
        yield from read_shard(path)


def shard_paths(folder: Path) -> list[Path]:
    """List the shards of a folder in order."""
    return sorted(folder.glob("*.jsonl"))


def read_shard(path: Path) -> Iterator[Document]:
    """Read the documents of a shard in order."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield Document.from_line(line)
            except (ValueError, TypeError) as error:
                raise AtlasError(
                    f"{path}:{number}: not a document ({error}); run `dvc repro -f clean` again"
                ) from None


def batches(documents: Iterable[Document], characters: int) -> Iterator[list[Document]]:
    """Group documents in order until each batch has a number of characters."""
    batch: list[Document] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += len(document.text)
        if size >= characters:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
