"""The text behind the model: samples, pictures, vocabulary, corpus."""

import base64
import math
import struct
from textwrap import shorten
from typing import Any

from atlas.tools.report.blocks import (
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
from atlas.tools.report.history import History
from atlas.tools.report.numbers import exact, percent, size, title_of
from atlas.tools.report.results import Results

INDENT = "    "  # of a sample in Markdown
WIDE = 1.5  # times the height of a picture, from which it takes the whole width
DRAWN = ("dynamics", "heads")  # pictures of what the page itself draws, in its own colours
PROMPT = 60  # characters of one in a title
REPEATS = {
    "distinct_1": "different tokens, share of all",
    "distinct_2": "different pairs",
    "distinct_3": "different threes",
    "repetition": "share that repeats",
    "longest_match": "longest run that train has, tokens",
    "mean_match": "mean of these runs",
    "copied": "share of texts that are copies",
}
ROWS = 12  # of a table of words
VOCABULARY_PAGE = "tokenizer.html"


def texts(results: Results, history: History) -> Section | None:
    """What the model writes, and how much of it repeats itself or the training text."""
    prompts = _prompts(history, "evaluate.prompts")
    groups: list[tuple[str, list[Sample]]] = []
    for block in results.samples.split("\n\n"):
        if not block.startswith(INDENT):
            groups += [(block.strip(), [])] if block.strip() else []
            continue
        text = "\n".join(line.removeprefix(INDENT) for line in block.rstrip("\n").split("\n"))
        groups = groups or [("", [])]
        place = len(groups[-1][1]) if len(groups) == 1 else len(prompts)
        given = prompts[place] if place < len(prompts) else ""
        given = given if text.startswith(given) else ""
        groups[-1][1].append(Sample(given, text.removeprefix(given).rstrip()))
    blocks: list[Block] = [Samples(found, note) for note, found in groups if found]
    if measures := _measures(results):
        columns = ("text written from nothing", "of the model", "of val, as long")
        blocks.append(Grid("Does it repeat?", columns, measures, (False, True, True)))
    return Section("samples", "Samples", blocks) if blocks else None


def pictures(results: Results, history: History) -> Section | None:
    """Pictures that stages drew, each named by its file and attention by its prompt."""
    given = _prompts(history, "evaluate.attention_prompts") or _prompts(history, "evaluate.prompts")
    prompts = {f"attention-{number}": prompt for number, prompt in enumerate(given, start=1)}
    images = []
    for picture in results.pictures:
        if picture.name in DRAWN:
            continue
        prompt = prompts.get(picture.name, "")
        title = title_of(picture.name) + (f": {shorten(prompt, PROMPT)}" if prompt else "")
        source = f"data:image/png;base64,{base64.b64encode(picture.content).decode('ascii')}"
        wide, high = struct.unpack(">II", picture.content[16:24])
        images.append(Image(title, source, wide=wide > WIDE * high))
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


def _prompts(history: History, key: str) -> list[str]:
    """Texts that params name."""
    found = (history.ran or history.params).get(key)
    return [str(each) for each in found] if isinstance(found, list) else []


def _measures(results: Results) -> list[tuple[str, str, str]]:
    """What is measured of samples beside real text: a row for each measure."""
    measured = results.metrics.get("evaluate", {})
    names = [key.removeprefix("samples_") for key in measured if key.startswith("samples_")]
    return [
        (
            REPEATS.get(name, name.replace("_", " ")),
            exact(measured[f"samples_{name}"]),
            exact(measured.get(f"real_text_{name}", "")),
        )
        for name in names
    ]
