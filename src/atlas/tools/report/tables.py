"""The data behind the tables, tiles and bars of the page, and the format of numbers and names."""

import base64
import logging
import math
import os
import re
import struct
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from textwrap import indent, shorten
from typing import Any

import pandas as pd

from atlas.pipeline.pages import exact
from atlas.tools.console import print_table, show_text
from atlas.tools.report.results import Commit, Params, Results, is_number, numbers, read_results

logger = logging.getLogger(__name__)
UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
MINUTE, HOUR = 60, 3600
PLAIN_NUMBER = r"-?(0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?"  # not 007, not 1_000
TEXT_COLUMNS = {"id", "source", "question", "expected", "answered", "text", "actual", "predicted"}
DRAWN_BY_PAGE = ("dynamics", "heads")  # pictures of what the page draws itself
MAX_HEADS, STRONGEST_HEADS = 64, 24  # of more heads than that, the page shows the strongest
WIDE = 1.5  # width over height; wider pictures take the whole width
INDENT = "    "  # of a sample in Markdown
SAME_PROMPTS = "The same prompts"  # begins the note above the samples of the base
SUMMARY_ROWS, SAMPLES_SHOWN = 10, 3  # of `atlas show`
SAMPLE_LINES, SAMPLE_CHARACTERS = 8, 600
ACTIVATE = "source .venv/bin/activate"
NEXT = [
    (ACTIVATE, "once in each shell"),
    ("atlas chat", "or: atlas generate, atlas serve"),
    ("dvc exp run -S train.lr=3e-3", "change a parameter; then: dvc metrics diff"),
    ("dvc exp run -S corpus.name=files", "your own text, from data/own/"),
    ("atlas show --all", "every metric and sample"),
]
NEXT_IN_A_CLONE = [
    ("make", "train this model, about ten minutes with the installation"),
    ("atlas show --all", "every metric"),
]
MAX_PROMPT = 60  # characters of a prompt in a title
MODEL, SLIDING = "this model", "this model, sliding window"
# Files and names of the main metrics, their labels, and whether higher is better.
MAIN_METRICS: tuple[tuple[str, str, str, bool | None], ...] = (
    ("evaluate", "val_loss", "val loss, nats per token", False),
    ("evaluate", "val_perplexity", "val perplexity", False),
    ("evaluate", "val_bits_per_byte", "val bits per byte", False),
    ("evaluate", "val_sliding_bits_per_byte", "val bits per byte, sliding window", False),
    ("evaluate", "val_accuracy", "val accuracy", True),
    ("evaluate", "test_loss", "test loss, nats per token", False),
    ("evaluate", "test_perplexity", "test perplexity", False),
    ("evaluate", "test_bits_per_byte", "test bits per byte", False),
    ("evaluate", "test_accuracy", "test accuracy", True),
    ("evaluate", "val_calibration_error", "val calibration error", False),
    ("evaluate", "edge_case_accuracy", "edge case accuracy", True),
    ("evaluate", "general_bits_per_byte", "general English, bits per byte", False),
    ("evaluate", "general_accuracy", "general English, accuracy", True),
    ("train", "best_val_loss", "best val loss during training", False),
    ("train", "best_step", "step of the best val loss", None),
    ("train", "tokens_seen", "tokens seen", None),
    ("train", "parameters", "parameters", None),
    ("tokenizer", "val_bytes_per_token", "bytes per token, val", True),
    ("export", "token_mismatches", "token mismatches in llama.cpp", False),
    ("export", "greedy_mismatches", "greedy mismatches in llama.cpp", False),
    ("export", "logit_difference", "largest logit difference, F32", None),
    ("timing/train", "seconds", "training time, seconds", None),
    ("timing/train", "tokens_per_second", "training speed, tokens/s", None),
)


def compared(results: Results, commit: Commit | None) -> pd.DataFrame:
    """The main metrics by name, each with its value in the last commit.

    The columns are label, before, now, change ("=" for none, "" where the commit does not have
    the file) and mood (good, bad or "").
    """
    rows = {}
    for file, name, label, higher in MAIN_METRICS:
        committed = commit.metrics.get(file, {}) if commit else {}
        value, now = committed.get(name), results.number(file, name)
        before = value if is_number(value) else None
        if now is not None or before is not None:
            changed = change(before, now, higher) if committed else ("", "")
            rows[name] = (label, before, now, *changed)
    columns = ["label", "before", "now", "change", "mood"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def change(before: float | None, now: float | None, higher: bool | None) -> tuple[str, str]:
    """Describe a change in words, and say if it is good or bad."""
    if before is None or now is None:
        return ("new" if before is None else "removed"), ""
    if now == before:
        return "=", ""
    mood = "" if higher is None else "good" if (now > before) == higher else "bad"
    if before and abs(now / before - 1) < 10:
        return percent(now / before - 1, "+"), mood
    return f"{'+' if now > before else ''}{exact(now - before)}", mood


def fine_tuning(results: Results) -> pd.DataFrame:
    """The main metrics before and after fine-tuning, in words, by label.

    The columns are base, fine-tuned, difference and mood (good, bad or ""); there are no rows for a
    model that was trained from scratch.
    """
    rows = {}
    for file, name, label, higher in MAIN_METRICS:
        before, now = results.number(file, f"base_{name}"), results.number(file, name)
        if before is not None and now is not None:
            changed, mood = change(before, now, higher)
            if name.endswith(SHARES) and mood:
                changed = f"{_digits(100 * (now - before), 3, '+')} points"
            rows[label] = (measure(name, before), measure(name, now), changed, mood)
    columns = ["base", "fine-tuned", "difference", "mood"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def typed(table: pd.DataFrame) -> pd.DataFrame:
    """A table from a file; columns with only numbers are numeric."""
    columns = {}
    for name in table:
        filled = table[name][table[name] != ""]
        numeric = (
            name not in TEXT_COLUMNS and len(filled) and filled.str.fullmatch(PLAIN_NUMBER).all()
        )
        columns[name] = numbers(table[name]) if numeric else table[name]
    return pd.DataFrame(columns)


def labeled(table: pd.DataFrame, label: str, column: str) -> "pd.Series[float]":
    """A column of numbers by label; cells that are not numbers are left out."""
    return numbers(table[column]).set_axis(table[label]).dropna()


def ngram_bits(results: Results) -> dict[str, float]:
    """Bits per byte of the n-gram models on val, by name: unigram, bigram."""
    return {
        found[1]: float(value)
        for key, value in results.of("evaluate").items()
        if (found := re.fullmatch(r"val_(.*gram)_bits_per_byte", key)) and is_number(value)
    }


def ngram_losses(results: Results) -> dict[str, float]:
    """Val losses of the n-gram models in this model's nats per token, highest first."""
    loss, bits = (results.number("evaluate", f"val_{name}") for name in ("loss", "bits_per_byte"))
    nats = loss / bits if loss and bits else 0.0  # per token, at one bit per byte
    losses = {name: value * nats for name, value in ngram_bits(results).items() if nats}
    return dict(sorted(losses.items(), key=lambda item: -item[1]))


def baselines(results: Results) -> "pd.Series[float]":
    """Bits per byte of the n-gram models and of this model on val, highest first."""
    own = {MODEL: "val_bits_per_byte", SLIDING: "val_sliding_bits_per_byte"}
    found = ngram_bits(results) | {
        name: results.number("evaluate", key) for name, key in own.items()
    }
    return pd.Series(found, dtype=float).dropna().sort_values(ascending=False)


def repetition(results: Results) -> pd.DataFrame:
    """Repetition and copying in unprompted samples and in real text, by measure."""
    names = [key.partition("samples_")[2] for key in results.of("evaluate")]
    columns = {"model": ("evaluate", "samples_{}"), "val text": ("evaluate", "real_text_{}")}
    return _metrics_table(results, filter(None, names), columns)


def splits(results: Results) -> pd.DataFrame:
    """The size of each split."""
    counts = {"documents": "clean", "words": "clean", "characters": "clean", "tokens": "tokenize"}
    columns = {name: (file, "{}_" + name) for name, file in counts.items()}
    return _metrics_table(results, ("train", "val", "test"), columns).dropna(how="all")


def sample_groups(results: Results, params: Params) -> list[tuple[str, list[tuple[str, str]]]]:
    """The samples in groups: a note, and the prompt and the continuation of each."""
    prompts = _texts(params, "evaluate.prompts")
    groups: list[tuple[str, list[tuple[str, str]]]] = []
    for block in results.samples.split("\n\n"):
        if not block.startswith(INDENT):
            groups += [(block.strip(), [])] if block.strip() else []
            continue
        text = "\n".join(line.removeprefix(INDENT) for line in block.rstrip("\n").split("\n"))
        groups = groups or [("", [])]
        samples = groups[-1][1]
        has_prompts = len(groups) == 1 or groups[-1][0].startswith(SAME_PROMPTS)
        prompt = dict(enumerate(prompts)).get(len(samples), "") if has_prompts else ""
        prompt = prompt if text.startswith(prompt) else ""
        samples.append((prompt, text.removeprefix(prompt).rstrip()))
    return [group for group in groups if group[1]]


def pictures(results: Results, params: Params) -> list[tuple[str, str, bool]]:
    """Title, data URL and width (wide or not) of each picture the page does not draw itself."""
    texts = _texts(params, "evaluate.attention_prompts") or _texts(params, "evaluate.prompts")
    prompts = {f"attention-{number}": text for number, text in enumerate(texts, start=1)}
    found = []
    scores = results.tables.get("tables/heads")
    drawn = DRAWN_BY_PAGE if scores is None or len(scores) <= MAX_HEADS else DRAWN_BY_PAGE[:1]
    for name, content in results.pictures.items():
        if name not in drawn:
            title = title_case(name)
            title += f": {shorten(prompts[name], MAX_PROMPT)}" if name in prompts else ""
            source = f"data:image/png;base64,{base64.b64encode(content).decode('ascii')}"
            width, height = struct.unpack(">II", content[16:24])
            found.append((title, source, width > WIDE * height))
    return found


def confusion(results: Results) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    """Counts and shares of predicted (columns) against actual (rows) tokens or answers."""
    table = results.table("tables/confusion", "actual", "predicted", "count", "share")
    if table is None:
        return None
    table = table.drop_duplicates(["actual", "predicted"], keep="last")
    table = table.assign(
        count=typed(table)["count"], share=numbers(table["share"]).abs().clip(upper=1)
    )
    counts, shares = (
        table.pivot(index="actual", columns="predicted", values=name) for name in ("count", "share")
    )
    rows, columns = (sorted(axis, key=_natural) for axis in counts.axes)
    return counts.loc[rows, columns], shares.loc[rows, columns].fillna(0.0)


def heads(results: Results) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    """Scores of each attention head (layer.head), and as shares of 1 or of the column's maximum.

    Of a model with many heads, only those with the highest scores.
    """
    table = results.table("tables/heads", "layer", "head")
    if table is None:
        return None
    scores = table.drop(columns=["layer", "head"]).apply(numbers).dropna(axis="columns", how="all")
    scores.index = pd.Index(table["layer"] + "." + table["head"])
    scores.columns = scores.columns.str.replace("_", " ")
    shares = scores.abs() / scores.abs().max().clip(lower=1.0)
    if scores.empty:
        return None
    if len(scores) > MAX_HEADS:
        order = scores.max(axis="columns").fillna(0.0).to_numpy().argsort(kind="stable")[::-1]
        scores, shares = (each.iloc[order[:STRONGEST_HEADS]] for each in (scores, shares))
    return scores, shares.fillna(0.0)


def agreement(results: Results) -> pd.DataFrame:
    """Differences from the model in PyTorch, by exported file or runtime."""
    columns = ["token_mismatches", "logit_difference", "greedy_mismatches"]
    rows: dict[str, dict[str, Any]] = {}
    for key, value in results.of("export").items():
        for column in columns:
            if key.endswith(column):
                rows.setdefault(key.removesuffix(column).rstrip("_"), {})[column] = value
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def seconds(results: Results) -> "pd.Series[float]":
    """Time by stage."""
    found = {
        name.removeprefix("timing/"): value
        for name in results.metrics
        if name.startswith("timing/") and (value := results.number(name, "seconds")) is not None
    }
    return pd.Series(found, dtype=float)


def _metrics_table(
    results: Results, rows: Iterable[str], columns: Mapping[str, tuple[str, str]]
) -> pd.DataFrame:
    """Metrics of some rows; each column has a file, and a name with {} for the row."""
    values = {
        row: [results.number(file, name.format(row)) for file, name in columns.values()]
        for row in rows
    }
    return pd.DataFrame.from_dict(values, orient="index", columns=list(columns), dtype=float)


def _texts(params: Params, key: str) -> list[str]:
    found = params.get(key)
    return [str(each) for each in found] if isinstance(found, list) else []


def _natural(text: str) -> tuple[float, str]:
    """Sort key that puts 2 before 10, and numbers before other texts."""
    return float(text) if re.fullmatch(PLAIN_NUMBER, text) else math.inf, text


def print_summary(root: Path) -> None:
    """Print ten numbers, three samples and what to try next; name damaged files on stderr."""
    results = read_results(root / "metrics")
    trained = (root / "models/model").is_dir()
    if not trained:
        print("There is no models/model here yet; these are the results kept in git.\n")
    print_table(("", ""), summary(results), right={1})
    if len(changes := fine_tuning(results).drop(columns="mood")):
        print()
        print_table(("", *changes.columns), changes.itertuples(name=None), right=range(1, 4))
    left = SAMPLES_SHOWN
    for note, samples in sample_groups(results, {}):
        if left > 0:
            show_text(f"\n{note}")
        for _, text in samples[: max(left, 0)]:
            show_text(f"\n{indent(_beginning(text), INDENT)}")
        left -= len(samples)
    if (page := root / "metrics/report.html").is_file():
        print(f"\nThe whole run on one page: {page.as_uri()}")
    steps = NEXT if trained else NEXT_IN_A_CLONE
    if "VIRTUAL_ENV" in os.environ:
        steps = [step for step in steps if step[0] != ACTIVATE]
    width = max(len(command) for command, _ in steps)
    print("\nNext:")
    for command, use in steps:
        print(f"  {command:{width}}  # {use}")
    _warn_of_damage(results)


def summary(results: Results) -> list[tuple[str, str]]:
    """The ten numbers to look at first, with their labels; fewer if the run has fewer."""
    rows = [
        (label, show(value))
        for label, file, name, show in SUMMARY
        if (value := results.number(file, name)) is not None
    ]
    files = {key: value for key, value in results.of("export").items() if key.endswith("_bytes")}
    sizes = {key: value for key, value in files.items() if is_number(value)}
    if sizes:
        smallest = min(sizes, key=lambda key: sizes[key])
        rows.append((f"{smallest.removesuffix('_bytes').upper()} file", size(sizes[smallest])))
    return rows[:SUMMARY_ROWS]


def _beginning(text: str) -> str:
    """The first lines of a sample."""
    text = text.strip("\n")
    shown = "\n".join(text.split("\n")[:SAMPLE_LINES])[:SAMPLE_CHARACTERS]
    return shown if shown == text else f"{shown.rstrip()}\n..."


def print_results(root: Path) -> None:
    """Print every metric of every stage and all samples; name damaged files on stderr."""
    results = read_results(root / "metrics")
    rows: list[tuple[str, str, str]] = []
    stage = ""
    for file, values in results.metrics.items():
        for name, value in values.items():
            shown = file.removeprefix("timing/")
            rows.append(("" if shown == stage else shown, name, exact(value)))
            stage = shown
    print_table(("", "metric", "value"), rows)
    if results.samples:
        show_text(f"\n{results.samples}")
    _warn_of_damage(results)


def _warn_of_damage(results: Results) -> None:
    for problem in results.problems:
        logger.warning("%s", problem)


def measure(name: str, value: Any) -> str:
    """A metric: a share as a percentage, other values as `exact` does."""
    is_share = name.endswith(SHARES) and is_number(value) and not isinstance(value, bool)
    return percent(value) if is_share else exact(value)


def cell(value: Any, column: str) -> str:
    """A table cell: shares as percentages, sizes in bytes, other values as `exact` does."""
    numeric = isinstance(value, int | float) and value == value
    return FORMATS[column](value) if numeric and column in FORMATS else exact(value)


def spaced(name: str) -> str:
    """The name of a metric or column in words: q8_0_tokens_per_second is "q8_0 tokens/s"."""
    return re.sub(r"_(?!\d)", " ", name.replace("_per_second", "/s"))


def compact(value: float) -> str:
    """A number for an axis or a headline: in full below a hundred thousand, then 120k."""
    if abs(value) >= 1e5:
        size, unit = next((size, unit) for size, unit in UNITS if abs(value) >= size)
        return f"{value / size:.4g}{unit}"
    return f"{value:,.0f}" if abs(value) >= 1e3 else f"{value:.4g}"


def percent(share: float, sign: str = "") -> str:
    """A share as a percentage, with more digits close to 100; `sign="+"` marks increases."""
    value = 100 * share
    return f"{_digits(value, 4 if 99 < value < 100 else 3, sign)}%"


def size(count: float) -> str:
    """A number of bytes in a fitting unit."""
    for unit, divisor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= divisor:
            return f"{_digits(count / divisor, 3)} {unit}"
    return f"{count:.0f} B"


def duration(seconds: float) -> str:
    """A time in fitting units."""
    whole = round(seconds)
    if whole < MINUTE:
        return f"{_digits(seconds, 3)} s"
    if whole < HOUR:
        return f"{whole // MINUTE} min {whole % MINUTE} s"
    return f"{whole // HOUR:,} h {whole % HOUR // MINUTE} min"


def _digits(value: float, count: int, sign: str = "") -> str:
    """A number with some significant digits; zeros at the end count, and whole parts are whole."""
    if not value or abs(value) >= 10**count - 0.5:
        return f"{value:{sign},.0f}"
    return f"{value:{sign}#.{count}g}".rstrip(".")


def title_case(name: str) -> str:
    """A heading made from a file name: attention_layer-1 is "Attention layer 1"."""
    words = name.replace("_", " ").replace("-", " ").strip() or "Picture"
    return words[0].upper() + words[1:]


SHARES = (  # ends of the names of metrics that are shares
    *("accuracy", "calibration_error", "copied", "distinct_1", "distinct_2", "distinct_3"),
    *("flop_utilisation", "flow", "found", "leakage", "repetition", "share", "top_1_agreement"),
)
FORMATS: dict[str, Callable[[float], str]] = dict.fromkeys(SHARES, percent) | {"bytes": size}
# What `atlas show` prints: label, file, name and format.
SUMMARY: tuple[tuple[str, str, str, Callable[[float], str]], ...] = (
    ("bits per byte, val", "evaluate", "val_bits_per_byte", exact),
    ("bits per byte of a bigram model, val", "evaluate", "val_bigram_bits_per_byte", exact),
    ("bits per byte, test", "evaluate", "test_bits_per_byte", exact),
    ("perplexity, val", "evaluate", "val_perplexity", exact),
    ("accuracy, val", "evaluate", "val_accuracy", percent),
    ("accuracy, edge cases", "evaluate", "edge_case_accuracy", percent),
    ("parameters", "train", "parameters", exact),
    ("tokens seen in training", "train", "tokens_seen", exact),
    ("training time", "timing/train", "seconds", duration),
    ("token mismatches in llama.cpp", "export", "token_mismatches", exact),
)
