"""index.json of a folder of token shards: how many, and of which tokenizer."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from atlas.cleaning.documents import Split
from atlas.errors import AtlasError
from atlas.pipeline.files import write_json

NAME = "index.json"


@dataclass(frozen=True)
class SplitIndex:
    """The tokens of one split.

    Attributes:
        shards: ids in each shard.
        documents: documents that they encode.
        bytes: size of those documents in UTF-8.
    """

    shards: list[int]
    documents: int
    bytes: int

    def with_shard(self, tokens: int, documents: int, size: int) -> "SplitIndex":
        """The same and one shard more."""
        return SplitIndex([*self.shards, tokens], self.documents + documents, self.bytes + size)

    @property
    def tokens(self) -> int:
        """Ids in all shards."""
        return sum(self.shards)


@dataclass(frozen=True)
class TokenIndex:
    """What a folder of token shards holds.

    Attributes:
        vocab_size: ids are below it.
        eos: the id that ends a document.
        pad: the id that fills up windows.
        separator: the id after which the answer of a document begins; None if all is learned.
        tokenizer_sha256: of the tokenizer's model file.
        windows: how they are cut, packed or padded.
        splits: by name.
    """

    vocab_size: int
    eos: int
    pad: int
    separator: int | None
    tokenizer_sha256: str
    windows: Literal["packed", "padded"]
    splits: dict[Split, SplitIndex]

    def write(self, folder: Path) -> None:
        """Writes index.json."""
        write_json(folder / NAME, asdict(self))

    @classmethod
    def read(cls, folder: Path) -> "TokenIndex":
        """Reads index.json.

        Raises:
            AtlasError: there is none, or it is not one.
        """
        path = folder / NAME
        try:
            return TypeAdapter(cls).validate_json(path.read_bytes(), strict=True)
        except (OSError, ValidationError) as error:
            raise AtlasError(
                f"{path}: no index of tokens ({error}); `dvc repro -f tokenize` makes it"
            ) from None
