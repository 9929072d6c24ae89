"""The kinds of files that clean reads, by their suffix."""

from typing import Literal

from atlas.cleaning.reading.streams import PACKED

Format = Literal["text", "jsonl", "csv", "parquet", "zip"]
FORMATS: dict[str, Format] = {
    ".txt": "text",
    ".text": "text",
    ".md": "text",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".zip": "zip",
}


def format_of(name: str) -> Format | None:
    """How a file is read; what is gzipped by the suffix below, text if there is none."""
    lowered = name.lower()
    plain = lowered.removesuffix(PACKED)
    for suffix, kind in FORMATS.items():
        if plain.endswith(suffix):
            return None if kind in ("parquet", "zip") and plain != lowered else kind
    return "text" if plain != lowered else None
