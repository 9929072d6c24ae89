"""How good the model is: beside counting, by source, where it is sure, and where it fails."""

import math
from collections.abc import Sequence

from atlas.tools.report.blocks import Bar, Bars, Block, Cell, Chart, Folded, Grid, Heat, Section
from atlas.tools.report.charts import diagonal_chart, square_chart
from atlas.tools.report.curves import baselines
from atlas.tools.report.numbers import cell, exact, percent, title_of
from atlas.tools.report.reading import Table
from atlas.tools.report.results import Results

FIRST = 30  # rows of a long table
BARS = 12  # sources that are drawn
BESIDE = 10  # columns of a heat table that has something beside it
READABLE = 24  # classes whose confusion can be read as numbers
SHOWN = ("sources", "confusion", "calibration", "failures", "edge_cases", "heads")
CONFUSION = ("actual", "predicted", "count", "share")
CALIBRATION = ("confidence", "accuracy", "tokens")
MODEL = "this model"
SHARES = ("accuracy", "share")
TEXTS = {"id", "source", "question", "expected", "answered", "text", "actual", "predicted"}


def quality(results: Results) -> list[Section]:
    """The sections on quality for which there are results."""
    found = [
        _section("baselines", "Beside counting", [_baselines(results)]),
        _section("sources", "By source", _sources(results)),
        _section("errors", "Right and wrong", [_confusion(results), _calibration(results)]),
        _section(
            "failures",
            "Failures",
            [
                _first(results, "tables/failures", "Wrong answers"),
                _first(results, "tables/edge_cases", "Edge cases"),
            ],
        ),
        _section("heads", "Heads", [_heads(results)]),
        _section("tables", "Other tables", _others(results)),
    ]
    return [section for section in found if section]


def _section(anchor: str, title: str, blocks: Sequence[Block | None]) -> Section | None:
    there = [block for block in blocks if block]
    return Section(anchor, title, there) if there else None


def _baselines(results: Results) -> Bars | None:
    counted = baselines(results)
    bits = results.number("evaluate", "val_bits_per_byte")
    if not counted or bits is None:
        return None
    best = min(counted.values())
    own = {MODEL: bits}
    if (sliding := results.number("evaluate", "val_sliding_bits_per_byte")) is not None:
        own[f"{MODEL}, windows that slide"] = sliding
    rows = sorted({**counted, **own}.items(), key=lambda row: -row[1])
    most = rows[0][1] or 1.0
    bars = [Bar(name, f"{value:.3f}", _part(value, most), name in own) for name, value in rows]
    saved = f"{percent(abs(1 - bits / best))} {'less' if bits < best else 'more'}" if best else ""
    note = f"{saved} than the best of those that only count." if saved else ""
    return Bars("Val bits per byte", ("model", "bits per byte"), bars, note, wide=True)


def _sources(results: Results) -> list[Block]:
    table = results.table("tables/sources", "source")
    if table is None:
        return []
    blocks: list[Block] = []
    for column, title, shown in (
        ("accuracy", "Accuracy", percent),
        ("bits_per_byte", "Bits per byte", exact),
    ):
        if not table.has(column):
            continue
        values = zip(table.texts("source"), table.numbers(column), strict=True)
        known = [(name, value) for name, value in values if not math.isnan(value)][:BARS]
        most = 1.0 if column == "accuracy" else max((value for _, value in known), default=1.0)
        bars = [Bar(name, shown(value), _part(value, most)) for name, value in known]
        if bars:
            blocks.append(Bars(title, ("source", title.lower()), bars))
    return [*blocks, Folded("All sources", [_table(table, "")])]


def _confusion(results: Results) -> Heat | Chart | None:
    table = results.table("tables/confusion", *CONFUSION)
    if table is None:
        return None
    cells = {
        (actual, predicted): (count, share)
        for actual, predicted, count, share in zip(
            *(table.texts(name) for name in CONFUSION), strict=True
        )
    }
    actual = sorted({pair[0] for pair in cells}, key=_natural)
    predicted = sorted({pair[1] for pair in cells}, key=_natural)
    shares = {
        (row, column): _part(share)
        for row, column, share in zip(
            table.texts("actual"), table.texts("predicted"), table.numbers("share"), strict=True
        )
    }
    title = "What was told (columns) for what was true (rows)"
    if max(len(actual), len(predicted)) > READABLE:
        matrix = [[shares.get((row, column), 0.0) for column in predicted] for row in actual]
        told = f"{title}: {len(actual)} rows, {len(predicted)} columns, in the order of their names"
        drawn = square_chart("confusion", told, matrix, ("told", "true"))
        return Chart(title, drawn, note="The warmer, the larger its share of the row.")
    rows = [
        (
            row,
            [
                Cell(cell(cells.get((row, column), ("",))[0]), shares.get((row, column), 0.0))
                for column in predicted
            ],
        )
        for row in actual
    ]
    note = "Each number counts answers; the warmer, the larger its share of the row."
    wide = len(predicted) > BESIDE
    return Heat(title, "true \\ told", predicted, rows, note, wide=wide)


def _calibration(results: Results) -> Chart | None:
    table = results.table("tables/calibration", *CALIBRATION)
    if table is None:
        return None
    rows = zip(*(table.numbers(name) for name in CALIBRATION), strict=True)
    points = [row for row in sorted(rows) if all(map(math.isfinite, row))]
    tokens = sum(weight for _, _, weight in points)
    if not points or tokens <= 0:
        return None
    gap = sum(weight * abs(sure - right) for sure, right, weight in points) / tokens
    title = "How often it is right when it is so sure"
    note = f"Off by {percent(gap)} on average over {exact(float(tokens))} tokens. Dotted: no gap."
    drawn = diagonal_chart("calibration", f"{title}. {note}", points, ("sure", "right"))
    return Chart(title, drawn, note=note)


def _first(results: Results, place: str, title: str) -> Grid | None:
    table = results.tables.get(place)
    return _table(table, title, mono=True) if table else None


def _heads(results: Results) -> Heat | None:
    table = results.table("tables/heads", "layer", "head")
    if table is None:
        return None
    scores = [name for name in table.columns if name not in ("layer", "head")]
    columns = [table.numbers(name) for name in scores]
    kept = [place for place, column in enumerate(columns) if any(map(math.isfinite, column))]
    most = [max(1.0, *(abs(v) for v in columns[k] if math.isfinite(v))) for k in kept]
    rows = [
        (
            f"{layer}.{head}",
            [
                Cell(
                    cell(table.rows[row][table.columns.index(scores[k])]),
                    _part(columns[k][row], top),
                )
                for k, top in zip(kept, most, strict=True)
            ],
        )
        for row, (layer, head) in enumerate(
            zip(table.texts("layer"), table.texts("head"), strict=True)
        )
    ]
    names = [scores[k].replace("_", " ") for k in kept]
    note = (
        "A row is a head (layer.head); the warmer, the nearer to 1, or to the most of its column."
    )
    return Heat("What each head does", "head", names, rows, note, wide=True) if kept else None


def _others(results: Results) -> list[Block]:
    """Tables that have no part of their own."""
    others = {
        place.removeprefix("tables/"): table
        for place, table in results.tables.items()
        if place.startswith("tables/") and place.removeprefix("tables/") not in SHOWN
    }
    return [
        Folded(title_of(name), [_table(table, "", mono=True)]) for name, table in others.items()
    ]


def _table(table: Table, title: str, *, mono: bool = False) -> Grid:
    """The first rows of a table, numbers to the right where a column holds nothing else."""
    numbers = [name not in TEXTS and _holds_numbers(table, name) for name in table.columns]
    rows = [
        tuple(
            _cell(name, text) if is_number else text
            for name, text, is_number in zip(table.columns, row, numbers, strict=True)
        )
        for row in table.rows[:FIRST]
    ]
    note = f"The first {FIRST} of {len(table.rows):,}." if len(table.rows) > FIRST else ""
    columns = [name.replace("_", " ") for name in table.columns]
    right = [is_number and not mono for is_number in numbers]
    return Grid(title, columns, rows, right, note, mono=mono)


def _holds_numbers(table: Table, column: str) -> bool:
    pairs = zip(table.texts(column), table.numbers(column), strict=True)
    return any(table.texts(column)) and all(
        not text or not math.isnan(number) for text, number in pairs
    )


def _cell(column: str, text: str) -> str:
    return percent(float(text)) if text and column in SHARES else cell(text)


def _part(value: float, most: float = 1.0) -> float:
    """A share of the most, within 0 and 1; 0 for what is no number."""
    return min(max(abs(value) / most, 0.0), 1.0) if math.isfinite(value) and most else 0.0


def _natural(text: str) -> tuple[bool, float, str]:
    """The order of names in which 2 comes before 10."""
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    return (False, found, text) if math.isfinite(found) else (True, 0.0, text)
