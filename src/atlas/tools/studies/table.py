"""Results as tables: a row a run for programs, a row a value for people."""

from collections.abc import Sequence

import pandas as pd

from atlas.tools.studies.plan import SEED
from atlas.tools.studies.results import Result
from atlas.tools.studies.study import Study, text_of

LABEL = "label"


def table_of_runs(study: Study, results: list[Result]) -> pd.DataFrame:
    """A row a run: its experiment, values, seed, state, measures, and why it failed.

    A measure that a run does not have is NaN.
    """
    rows = []
    for result in results:
        run = result.run
        row: dict[str, object] = {"experiment": run.name, LABEL: study.label(run.row)}
        row |= {key: study.value(run.row, key) for key in study.plan.keys}
        row |= {SEED: run.seed, "state": result.state}
        row |= {measure: result.measures.get(measure) for measure in study.plan.measures}
        rows.append(row | {"reason": result.reason})
    table = pd.DataFrame(rows)
    return table.astype(dict.fromkeys(study.plan.measures, float))


def as_csv(study: Study, results: list[Result]) -> str:
    """The table of runs as CSV."""
    return table_of_runs(study, results).to_csv(index=False, lineterminator="\n")


def as_markdown(study: Study, results: list[Result]) -> str:
    """A row a value: of each measure the mean, the lowest, the highest; and how many runs."""
    plan = study.plan
    has_labels = any(row.label for row in plan.vary)
    header = [*([""] if has_labels else []), *plan.keys, *_short(plan.measures), "runs"]
    lines = [_line(header), _line(["---"] * len(header))]
    for number in range(len(plan.vary)):
        own = [result for result in results if result.run.row == number]
        cells = [study.label(number)] if has_labels else []
        cells += [text_of(study.value(number, key)) for key in plan.keys]
        for measure in plan.measures:
            cells.append(spread([r.measures[measure] for r in own if measure in r.measures]))
        lines.append(_line([*cells, _runs(own)]))
    return "\n".join(lines)


def spread(values: list[float]) -> str:
    """Mean, lowest and highest: ``1.893 (1.88 to 1.91)``; one value as it is, none as nothing."""
    if not values:
        return ""
    mean = f"{sum(values) / len(values):.4g}"
    lowest, highest = f"{min(values):.4g}", f"{max(values):.4g}"
    return mean if lowest == highest else f"{mean} ({lowest} to {highest})"


def _runs(results: list[Result]) -> str:
    """``3``, ``2 of 3``, or what failed and why."""
    done = sum(result.state == "done" for result in results)
    failed = [result for result in results if result.state == "failed"]
    text = str(done) if done == len(results) else f"{done} of {len(results)}"
    reasons = sorted({result.reason for result in failed})
    return f"{text}, {len(failed)} failed: {'; '.join(reasons)}" if failed else text


def _short(measures: Sequence[str]) -> list[str]:
    """``evaluate.val_loss`` as ``val_loss``, unless another one is called so too."""
    last = [measure.split(".")[-1] for measure in measures]
    return [
        short if last.count(short) == 1 else measure
        for short, measure in zip(last, measures, strict=True)
    ]


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
