"""What was exported, how it was proven, and how long everything took."""

import math
import re
from collections.abc import Mapping

from atlas.tools.report.blocks import Bar, Bars, Block, Grid, Mood, Section, Tile, Tiles
from atlas.tools.report.curves import speed_charts
from atlas.tools.report.numbers import cell, duration, exact, percent, size
from atlas.tools.report.reading import Value, number
from atlas.tools.report.results import Results

ORDER = ("fetch", "clean", "train_tokenizer", "tokenize", "train", "evaluate", "export")
SHOWN = {"bytes": "size", "kl_divergence": "KL divergence", "top_1_agreement": "same first choice"}
NAMES = {"": "llama.cpp, F32", "hugging_face": "transformers"}


def export(results: Results) -> Section | None:
    """The files, and what was compared with the model in PyTorch."""
    blocks: list[Block] = []
    if table := results.table("export", "file"):
        rows = [
            tuple(_cell(name, text) for name, text in zip(table.columns, row, strict=True))
            for row in table.rows
        ]
        numbers = [name not in ("file", "format", "types") for name in table.columns]
        columns = [SHOWN.get(name, name.replace("_", " ")) for name in table.columns]
        blocks.append(Grid("Files", columns, rows, numbers))
    found = results.metrics.get("export", {})
    if proofs := _proofs(found):
        columns = ["beside PyTorch", "tokens cut otherwise", "largest difference of logits"]
        columns.append("greedy tokens otherwise")
        moods: list[Mood] = ["good" if row[3] == "0" else "" for row in proofs]
        right = (False, True, True, True)
        blocks.append(Grid("The proof", columns, proofs, right, _compared(found), moods=moods))
    return Section("export", "Export", blocks) if blocks else None


def timings(results: Results) -> Section | None:
    """Seconds of every stage, and the speed of training."""
    seconds = {
        name: float(found)
        for name, values in results.timing.items()
        if isinstance(found := values.get("seconds"), int | float) and found >= 0
    }
    names = [*(name for name in ORDER if name in seconds), *sorted(seconds.keys() - set(ORDER))]
    blocks: list[Block] = []
    if names:
        most = max(seconds.values()) or 1.0
        bars = [Bar(name, duration(seconds[name]), seconds[name] / most) for name in names]
        note = f"{duration(sum(seconds.values()))} in all."
        blocks.append(Bars("Stages", ("stage", "time"), bars, note))
    blocks += speed_charts(results)
    tiles = [
        Tile(re.sub(r"_(?!\d)", " ", key), exact(value), name)
        for name in names
        for key, value in results.timing[name].items()
        if key != "seconds"
    ]
    if tiles:
        blocks.append(Tiles(tiles))
    return Section("timings", "Timings", blocks) if blocks else None


def _cell(column: str, text: str) -> str:
    value = number(text)
    if column == "bytes" and not math.isnan(value):
        return size(value)
    if column == "top_1_agreement" and not math.isnan(value):
        return percent(value)
    return text if column in ("file", "format", "types") else cell(text)


def _proofs(found: Mapping[str, Value]) -> list[tuple[str, ...]]:
    """What was compared with the model in PyTorch: a row for each file or runtime."""
    endings = ("token_mismatches", "logit_difference", "greedy_mismatches")
    names = [""] if any(ending in found for ending in endings) else []
    for key in found:
        name = next((key.removesuffix(f"_{e}") for e in endings if key.endswith(f"_{e}")), "")
        names += [name] if name and name not in names else []
    return [
        (
            NAMES.get(name, name),
            *(exact(found.get(f"{name}_{ending}".lstrip("_"), "")) for ending in endings),
        )
        for name in names
    ]


def _compared(found: Mapping[str, Value]) -> str:
    """Over how much, and the perplexities that came out."""
    parts = [
        f"{exact(found[key])} {words}"
        for key, words in (
            ("texts", "texts"),
            ("tokens", "tokens"),
            ("greedy_tokens", "greedy tokens"),
        )
        if key in found
    ]
    told = f"Compared: {', '.join(parts)}." if parts else ""
    here, there = found.get("perplexity"), found.get("f32_perplexity")
    if isinstance(here, float) and isinstance(there, float):
        told += f" Val perplexity is {here:.4f} in PyTorch, {there:.4f} in llama.cpp (F32)."
    return told.strip()
