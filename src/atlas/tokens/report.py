"""What the vocabulary makes of a corpus: metrics, a table of the pieces, and a page to look at."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader

from atlas.cleaning.documents import SPLITS, Split, read_documents
from atlas.pipeline.files import write_csv, write_text
from atlas.tokens.encode_shard import Counts
from atlas.tokens.index import TokenIndex
from atlas.tokens.pieces import visible
from atlas.tokens.tokenizer import Tokenizer

TEMPLATE = "report.html.j2"
LISTED, NAMED = 40, 5  # pieces on the page, and in the metrics
SAMPLE = 1500  # characters


@dataclass(frozen=True)
class VocabularyReport:
    """How a vocabulary is used.

    Attributes:
        tokenizer: whose vocabulary it is.
        index: the tokens of each split.
        counts: how often each id occurs in each split, (V,).
    """

    tokenizer: Tokenizer
    index: TokenIndex
    counts: Mapping[Split, Counts]

    @cached_property
    def text_pieces(self) -> list[int]:
        """Ids of the pieces that were made for text: no special ones, no bytes."""
        everything = range(self.tokenizer.vocab_size)
        return [identity for identity in everything if self.tokenizer.is_text(identity)]

    @cached_property
    def unused(self) -> list[int]:
        """Those that do not occur in the training text."""
        return [identity for identity in self.text_pieces if not self.counts["train"][identity]]

    @cached_property
    def rarest(self) -> list[int]:
        """Those that do, the rarest first."""
        used = [identity for identity in self.text_pieces if self.counts["train"][identity]]
        return sorted(used, key=lambda identity: int(self.counts["train"][identity]))

    @cached_property
    def longest(self) -> list[int]:
        """The longest first."""
        return sorted(self.text_pieces, key=lambda identity: -len(self.tokenizer.piece(identity)))

    def bytes_per_token(self, split: Split) -> float:
        """Bytes of text that a token stands for; ends of documents do not count."""
        tokens = self.index.splits[split].tokens - int(self.counts[split][self.tokenizer.eos])
        return self.index.splits[split].bytes / tokens if tokens else 0.0

    def metrics(self) -> dict[str, int | float | str]:
        """Numbers for ``dvc metrics``, and the pieces that stand out."""
        found: dict[str, int | float | str] = {"vocab_size": self.tokenizer.vocab_size}
        for split in SPLITS:
            found[f"{split}_bytes_per_token"] = self.bytes_per_token(split)
        for split in SPLITS:
            found[f"{split}_unknown_tokens"] = int(self.counts[split][self.tokenizer.unk])
        return found | {
            "unused_pieces": len(self.unused),
            "longest_pieces": self._named(self.longest),
            "rarest_pieces": self._named(self.rarest),
        }

    def write_pieces(self, path: Path) -> None:
        """Writes a table of all pieces and their counts."""
        rows = [
            {"id": identity, "piece": self.tokenizer.escaped(identity)}
            | {split: int(self.counts[split][identity]) for split in SPLITS}
            for identity in range(self.tokenizer.vocab_size)
        ]
        write_csv(path, rows)

    def write_page(self, path: Path, documents: Path) -> None:
        """Writes a page with these numbers and a coloured sample of the ``documents``."""
        environment = Environment(
            loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True
        )
        text = "\n".join(each.text for each in islice(read_documents(documents), 20))[:SAMPLE]
        page = environment.get_template(TEMPLATE).render(
            tokenizer=self.tokenizer,
            splits=[
                (split, self.index.splits[split], self.bytes_per_token(split)) for split in SPLITS
            ],
            lists=[
                ("Longest pieces", self._rows(self.longest[:LISTED])),
                ("Most frequent pieces", self._rows(self.rarest[: -LISTED - 1 : -1])),
                ("Rarest pieces", self._rows(self.rarest[:LISTED])),
                (f"Unused pieces: {len(self.unused):,}", self._rows(self.unused[:LISTED])),
            ],
            sample=self._rows(self.tokenizer.encode(text)),
        )
        write_text(path, page)

    def _rows(self, identities: list[int]) -> list[dict[str, Any]]:
        return [
            {
                "id": identity,
                "text": visible(self.tokenizer.piece(identity)),
                "count": int(self.counts["train"][identity]),
                "line_end": self.tokenizer.piece(identity).endswith("\n"),
                "odd": not self.tokenizer.is_text(identity),
            }
            for identity in identities
        ]

    def _named(self, identities: list[int]) -> str:
        return " ".join(visible(self.tokenizer.piece(each)) for each in identities[:NAMED])
