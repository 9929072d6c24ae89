"""index.json of a folder of token shards: how many, and of which tokenizer."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from atlas.cleaning.splits import Split
from atlas.errors import AtlasError
from atlas.files import write_json

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
        tokenizer_sha256: of the tokenizer's model file.
        windows: how they are cut, packed or padded.
        splits: by name.
    """

    vocab_size: int
    eos: int
    pad: int
    tokenizer_sha256: str
    windows: str
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
            values = json.loads(path.read_text(encoding="utf-8"))
            values["splits"] = {s: SplitIndex(**entry) for s, entry in values["splits"].items()}
            return cls(**values)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise AtlasError(
                f"{path}: no index of tokens ({error}); `dvc repro -f tokenize` makes it"
            ) from None
