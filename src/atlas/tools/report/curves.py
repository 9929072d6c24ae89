"""Curves of a run: which columns belong on one chart, and as many points as it can show."""

from collections.abc import Sequence

from atlas.tools.report.blocks import Chart, Line
from atlas.tools.report.charts import Curve, Level, finite, line_chart
from atlas.tools.report.numbers import compact, exact, percent
from atlas.tools.report.reading import Table
from atlas.tools.report.results import Results

TALL = 330  # points, of the first chart
MOST_POINTS = 500  # of a curve
COUNTED = "gram"  # how the names of models that count end: unigram, bigram
LONG = 5_000  # steps from which they stand on a logarithmic scale
Points = list[tuple[float, float]]


def learning_charts(results: Results) -> list[Chart]:
    """Accuracy, and what else was logged while the model was trained."""
    found = [
        _accuracy(results),
        _single(results, "train", "lr", "Learning rate"),
        _single(results, "train", "gradient_norm", "Norm of the gradient, before clipping"),
        _single(results, "val", "weight_norm", "Norm of the weights")
        or _single(results, "train", "weight_norm", "Norm of the weights"),
    ]
    return [chart for chart in found if chart]


def speed_charts(results: Results) -> list[Chart]:
    """Tokens a second, over the steps."""
    chart = _single(
        results, "timing/train", "tokens_per_second", "Training, tokens a second", from_zero=True
    )
    return [chart] if chart else []


def points_of(table: Table | None, column: str) -> Points:
    """A column over the steps, as far as both are finite; empty where there is none."""
    if table is None or not table.has("step", column):
        return []
    pairs = zip(table.numbers("step"), table.numbers(column), strict=True)
    return sorted(finite(list(pairs)))


def thinned(points: Sequence[tuple[float, float]]) -> Points:
    """At most so many points that a chart can show; the first and the last stay."""
    every = -(-len(points) // MOST_POINTS) or 1
    kept = list(points[::every])
    if points and kept[-1] != points[-1]:
        kept.append(points[-1])
    return kept


def levels_of(results: Results) -> list[Level]:
    """The losses of counting models, in nats a token."""
    loss = results.number("evaluate", "val_loss")
    bits = results.number("evaluate", "val_bits_per_byte")
    if not loss or not bits:
        return []
    return [
        Level(value * loss / bits, name.title().replace("_", " "))
        for name, value in baselines(results).items()
    ]


def baselines(results: Results) -> dict[str, float]:
    """Bits per byte of val by models that count, by their names."""
    found = {}
    for key, value in results.metrics.get("evaluate", {}).items():
        name = key.removeprefix("val_").removesuffix("_bits_per_byte")
        counted = name.endswith(COUNTED) and key == f"val_{name}_bits_per_byte"
        if counted and isinstance(value, int | float):
            found[name] = float(value)
    return found


def loss_chart(results: Results) -> Chart | None:
    """The losses of train and val, beside those of models that count."""
    train, val = results.tables.get("train"), results.tables.get("val")
    raw, average = points_of(train, "loss"), points_of(train, "loss_average")
    over = points_of(val, "train_loss")
    checked = points_of(val, "loss")
    best = min(checked, key=lambda point: point[1]) if checked else None
    curves, legend = [], []
    if raw:
        curves.append(Curve(thinned(raw), "train", thin=bool(average or over)))
        legend.append(Line("train, each log", "train"))
    if average and not over:
        curves.append(Curve(thinned(average), "average"))
        legend.append(Line("train, averaged", "average"))
    if over:
        curves.append(Curve(thinned(over), "average"))
        legend.append(Line("train, measured as val is", "average"))
    if checked and best:
        curves.append(Curve(thinned(checked), "val", mark=best))
        legend.append(Line(f"val, best {best[1]:.3f} at step {best[0]:,.0f}", "val"))
    if not curves:
        return None
    title = "Loss, in nats a token"
    last = f"The last one of val is {checked[-1][1]:.3f}." if checked else ""
    return Chart(
        title,
        line_chart(
            "loss",
            f"{title}, over steps of training. {last}",
            curves,
            labels=("step", "loss"),
            log_x=_long(*(curve.points for curve in curves)),
            levels=levels_of(results),
            height=TALL,
        ),
        legend,
    )


def _accuracy(results: Results) -> Chart | None:
    train, val = results.tables.get("train"), results.tables.get("val")
    learned = points_of(val, "train_accuracy") or points_of(train, "accuracy")
    checked = points_of(val, "accuracy")
    curves, legend = [], []
    for points, name, colour in ((learned, "train", "average"), (checked, "val", "val")):
        if points:
            curves.append(Curve(thinned(points), colour, mark=points[-1]))
            legend.append(Line(f"{name}, {percent(points[-1][1])} at the end", colour))
    if not curves:
        return None
    title = "Accuracy, the share of right tokens, or answers"
    return Chart(
        title,
        line_chart(
            "accuracy",
            f"{title}, over steps of training.",
            curves,
            labels=("step", "accuracy"),
            log_x=_long(learned, checked),
            whole=max(y for curve in curves for _, y in curve.points) > 0.5,
        ),
        legend,
    )


def _single(
    results: Results, table: str, column: str, title: str, *, from_zero: bool = False
) -> Chart | None:
    points = points_of(results.tables.get(table), column)
    if not points:
        return None
    drawn = line_chart(
        column,
        f"{title}, over steps of training; {exact(points[-1][1])} at the end.",
        [Curve(thinned(points), "accent")],
        labels=("step", column.replace("_", " ")),
        log_x=_long(points),
        from_zero=from_zero,
    )
    ys = [y for _, y in points]
    return Chart(
        title,
        drawn,
        note=f"From {compact(min(ys))} to {compact(max(ys))}, {compact(ys[-1])} at the end.",
    )


def _long(*curves: Sequence[tuple[float, float]]) -> bool:
    """Whether the steps span so much that each power of ten should be as wide."""
    steps = [step for points in curves for step, _ in points]
    return max(steps, default=0) >= LONG and sum(step > 0 for step in set(steps)) > 1
