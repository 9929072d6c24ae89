"""The text behind the model: samples, pictures, vocabulary, corpus."""

import base64
import math
from typing import Any

from atlas.report.blocks import (
    Bar,
    Bars,
    Block,
    Chips,
    Grid,
    Image,
    Sample,
    Samples,
    Section,
    Tile,
    Tiles,
    Words,
)
from atlas.report.history import History
from atlas.report.numbers import exact, percent, size
from atlas.report.results import Results

INDENT = "    "  # of a sample in Markdown
ROWS = 12  # of a table of words
VOCABULARY_PAGE = "tokenizer.html"


def texts(results: Results, history: History) -> Section | None:
    """What the model writes."""
    prompts = (history.ran or history.params).get("evaluate.prompts")
    found: list[Sample] = []
    notes = []
    for block in results.samples.split("\n\n"):
        if not block.strip():
            continue
        if block.startswith(INDENT):
            text = "\n".join(line.removeprefix(INDENT) for line in block.rstrip("\n").split("\n"))
            given = _prompt(prompts, len(found), text)
            found.append(Sample(given, text.removeprefix(given).rstrip()))
        else:
            notes.append(block.strip())
    if not found:
        return None
    return Section("samples", "Samples", [Samples(found, " ".join(notes))])


def pictures(results: Results) -> Section | None:
    """Pictures that stages drew, each named by its file."""
    images = [
        Image(title_of(picture.name), f"data:image/png;base64,{_base64(picture.content)}")
        for picture in results.pictures
    ]
    return Section("pictures", "Pictures", images) if images else None


def vocabulary(results: Results) -> Section | None:
    """What the tokenizer makes of the text."""
    values = results.metrics.get("tokenizer", {})
    if not values:
        return None
    tiles = []
    for name, label in (
        ("vocab_size", "pieces"),
        ("train_bytes_per_token", "bytes a token, train"),
        ("val_bytes_per_token", "bytes a token, val"),
        ("unused_pieces", "pieces never used"),
        ("val_unknown_tokens", "unknown tokens, val"),
    ):
        if name in values:
            tiles.append(Tile(label, exact(values[name])))
    blocks: list[Block] = [Tiles(tiles)] if tiles else []
    for name, title in (("longest_pieces", "Longest pieces"), ("rarest_pieces", "Rarest pieces")):
        chips = str(values.get(name, "")).split()
        if chips:
            blocks.append(Chips(title, chips))
    if VOCABULARY_PAGE in results.pages:
        blocks.append(Words("All pieces, and a text cut into them:", link=VOCABULARY_PAGE))
    return Section("vocabulary", "Vocabulary", blocks) if blocks else None


def corpus(results: Results) -> Section | None:
    """What the text is made of, and what cleaning did to it."""
    blocks: list[Block] = []
    cleaned = results.metrics.get("clean", {})
    tiles = []
    if isinstance(fetched := results.number("fetch", "bytes"), int | float):
        files = results.number("fetch", "files")
        note = f"in {exact(files)} files" if files is not None else ""
        tiles.append(Tile("fetched", size(fetched), note))
    if isinstance(kept := cleaned.get("documents_kept"), int | float):
        come = cleaned.get("documents_in")
        note = f"of {exact(come)}" if come is not None else ""
        tiles.append(Tile("documents kept", exact(kept), note))
    for name in ("val", "test"):
        if isinstance(share := cleaned.get(f"{name}_leakage"), int | float):
            tiles.append(Tile(f"of {name} stands in train", percent(share), "runs of 13 words"))
    if tiles:
        blocks.append(Tiles(tiles))
    done = [
        (name.split("_", 1)[0], name.split("_", 1)[1].replace("_", " "), exact(value))
        for name, value in cleaned.items()
        if name.startswith(("changed_", "rejected_")) and value
    ]
    if rows := _splits(results):
        columns = ["split", "documents", "words", "characters", "tokens"]
        numbers = (False, True, True, True, True)
        blocks.append(Grid("Splits", columns, rows, numbers, wide=not done))
    if done:
        columns = ["documents", "why", "how many"]
        blocks.append(Grid("What cleaning did", columns, done, (False, False, True), wide=not rows))
    for place, label, count, title in (
        ("words", "word", "count", "Most frequent words"),
        ("characters", "character", "count", "Most frequent characters"),
        ("lengths", "words", "documents", "Words in a document"),
        ("scripts", "script", "letters", "Letters by script"),
    ):
        table = results.table(f"corpus/{place}", label, count)
        if table is None:
            continue
        pairs = list(zip(table.texts(label), table.numbers(count), strict=True))
        shown = [(name, value) for name, value in pairs if not math.isnan(value)]
        shown = shown if place == "lengths" else shown[:ROWS]
        most = max((value for _, value in shown), default=0.0) or 1.0
        bars = [Bar(name, exact(value), max(value, 0) / most) for name, value in shown]
        if bars:
            blocks.append(Bars(title, (label, count), bars))
    return Section("corpus", "Corpus", blocks) if blocks else None


def title_of(name: str) -> str:
    """A title from the name of a file: attention_layer_1 is Attention layer 1."""
    words = name.replace("_", " ").replace("-", " ").strip() or "picture"
    return words[0].upper() + words[1:]


def _splits(results: Results) -> list[tuple[str, ...]]:
    cleaned, tokens = results.metrics.get("clean", {}), results.metrics.get("tokenize", {})
    rows = []
    for split in ("train", "val", "test"):
        parts: list[Any] = [
            cleaned.get(f"{split}_{n}") for n in ("documents", "words", "characters")
        ]
        parts.append(tokens.get(f"{split}_tokens"))
        if any(part is not None for part in parts):
            rows.append((split, *("" if part is None else exact(part) for part in parts)))
    return rows


def _prompt(prompts: Any, place: int, text: str) -> str:
    """What of a sample was given: a prompt, where params name it."""
    if isinstance(prompts, list) and place < len(prompts):
        given = str(prompts[place])
        if text.startswith(given):
            return given
    return ""


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
