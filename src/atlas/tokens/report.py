"""Report how a vocabulary fits a corpus: metrics, a table of the pieces, and a page."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from atlas.cleaning.documents import SPLITS, Split, read_documents
from atlas.errors import escape_controls
from atlas.pipeline.files import write_csv, write_text
from atlas.pipeline.pages import page_environment
from atlas.tokens.encode import Counts
from atlas.tokens.shards import CorpusSize, SplitIndex, TokenIndex
from atlas.tokens.tokenizer import Tokenizer, visible

PAGE_PIECES, METRIC_PIECES = 40, 5  # pieces per list on the page, and in the metrics
SAMPLE_CHARACTERS, SAMPLE_DOCUMENTS = 1500, 20
STYLES = ("black on cyan", "black on green", "black on yellow", "black on magenta")


@dataclass
class VocabularyReport:
    """How often the pieces of a vocabulary are used."""

    tokenizer: Tokenizer
    index: TokenIndex
    counts: Mapping[Split, Counts]

    def __post_init__(self) -> None:
        # Ids of text pieces: no special pieces, no single bytes.
        text = list(filter(self.tokenizer.is_text, range(self.tokenizer.vocab_size)))
        in_train = self.counts["train"].tolist()
        self.unused = [identity for identity in text if not in_train[identity]]
        self.rarest = sorted(filter(in_train.__getitem__, text), key=in_train.__getitem__)
        self.longest = sorted(text, key=lambda identity: -len(self.tokenizer.piece(identity)))

    def bytes_per_token(self, split: Split, corpus: str | None = None) -> float:
        """Return the bytes of text per token, without the tokens that end documents."""
        sizes = self.index.splits[split]
        size = sizes if corpus is None else sizes.corpora[corpus]
        ends = int(self.counts[split][self.tokenizer.eos])  # one for each document, or none
        tokens = size.tokens - (ends if corpus is None else min(ends, size.documents))
        return size.bytes / tokens if tokens else 0.0

    def _sizes(self) -> list[tuple[str, SplitIndex | CorpusSize, float]]:
        """Name, size, and bytes per token of each split, and of the corpora of a mix in it."""
        rows: list[tuple[str, SplitIndex | CorpusSize, float]] = []
        for split in SPLITS:
            rows.append((split, self.index.splits[split], self.bytes_per_token(split)))
            for corpus, size in self.index.splits[split].corpora.items():
                rows.append((f"{split}, {corpus}", size, self.bytes_per_token(split, corpus)))
        return rows

    def metrics(self) -> dict[str, int | float | str]:
        """Return the numbers that ``dvc metrics`` shows, and the longest and rarest pieces."""
        unknown = self.tokenizer.unk
        return {
            "vocab_size": self.tokenizer.vocab_size,
            **{f"{split}_bytes_per_token": self.bytes_per_token(split) for split in SPLITS},
            **{
                f"{split}_bytes_per_token.{corpus}": self.bytes_per_token(split, corpus)
                for split in SPLITS
                for corpus in self.index.splits[split].corpora
            },
            **{
                f"{split}_unknown_tokens": 0
                if unknown is None
                else int(self.counts[split][unknown])
                for split in SPLITS
            },
            "unused_pieces": len(self.unused),
            "longest_pieces": self._names(self.longest),
            "rarest_pieces": self._names(self.rarest),
        }

    def write_pieces(self, path: Path) -> None:
        """Write a table of all pieces and their counts."""
        rows = [
            {"id": identity, "piece": self.tokenizer.escaped(identity)}
            | {split: int(self.counts[split][identity]) for split in SPLITS}
            for identity in range(self.tokenizer.vocab_size)
        ]
        write_csv(path, rows)

    def write_page(self, path: Path, documents: Path) -> None:
        """Write a page with these numbers and a colored sample of the ``documents``."""
        template = page_environment(Path(__file__).parent).get_template("tokenizer.html.j2")
        sample = islice(read_documents(documents), SAMPLE_DOCUMENTS)
        text = "\n".join(document.text for document in sample)[:SAMPLE_CHARACTERS]
        lists = {
            "Longest pieces": self.longest,
            "Most frequent pieces": self.rarest[::-1],
            "Rarest pieces": self.rarest,
            "Unused pieces": self.unused,
        }
        page = template.render(
            tokenizer=self.tokenizer,
            splits=self._sizes(),
            sample=self._rows(self.tokenizer.encode(text)),
            lists=[
                (title, len(pieces), self._rows(pieces[:PAGE_PIECES]))
                for title, pieces in lists.items()
            ],
        )
        write_text(path, page)

    def _rows(self, identities: list[int]) -> list[dict[str, Any]]:
        return [
            {
                "id": identity,
                "text": visible(self.tokenizer.piece(identity)),
                "count": int(self.counts["train"][identity]),
                "line_end": self.tokenizer.piece(identity).endswith("\n"),
                "not_text": not self.tokenizer.is_text(identity),
            }
            for identity in identities
        ]

    def _names(self, identities: list[int]) -> str:
        return " ".join(visible(self.tokenizer.piece(each)) for each in identities[:METRIC_PIECES])


def print_pieces(tokenizer: Tokenizer, text: str) -> None:
    """Print id and piece of each token of a text, and the bytes per token."""
    console = Console(highlight=False)
    ids = tokenizer.encode(text)
    table = Table("id", "piece", box=None, pad_edge=False, header_style="bold")
    for number, identity in enumerate(ids):
        piece = visible(tokenizer.piece(identity))
        table.add_row(str(identity), Text(escape_controls(piece), STYLES[number % len(STYLES)]))
    console.print(table)
    size = len(text.encode())
    ratio = f", {size / len(ids):.2f} bytes per token" if ids else ""
    console.print(f"{len(ids):,} tokens, {size:,} bytes{ratio}")
