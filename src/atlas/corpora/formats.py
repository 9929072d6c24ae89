"""The kinds of files that a corpus may consist of, by their suffix."""

from typing import Literal

PACKED = ".gz"
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
PACKABLE = tuple(suffix for suffix, kind in FORMATS.items() if kind not in ("parquet", "zip"))


def format_of(name: str) -> Format | None:
    """How a file is read; what is gzipped by the suffix below, text if there is none."""
    lowered = name.lower()
    plain = lowered.removesuffix(PACKED)
    for suffix, kind in FORMATS.items():
        if plain.endswith(suffix):
            return None if plain != lowered and suffix not in PACKABLE else kind
    return "text" if plain != lowered else None
