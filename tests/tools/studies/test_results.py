"""Tables, pictures and pages of results that are made up."""

import io
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest

from atlas.errors import AtlasError
from atlas.tools.studies.page import BEGIN, END, write_page
from atlas.tools.studies.plan import Plan
from atlas.tools.studies.plot import draw
from atlas.tools.studies.queue import Entry
from atlas.tools.studies.results import Result, reason_of
from atlas.tools.studies.study import Run, Study
from atlas.tools.studies.table import as_csv, as_markdown, spread, table_of_runs
from tests.small import small_params

LOSS, COPIED = "evaluate.val_loss", "evaluate.samples_copied"


@pytest.fixture(scope="module")
def study() -> Study:
    plan = Plan.model_validate(
        {
            "question": "Which rate?",
            "set": {"train.steps": 600},
            "vary": {"train.lr": [0.001, 0.002, 0.004]},
            "seeds": [1, 2],
            "measures": [LOSS, COPIED],
            "scale": "log",
        }
    )
    runs = tuple(
        Run(
            f"lr_{rate}_s{seed}_0123abcd",
            row,
            seed,
            small_params(**{"train.lr": rate, "train.seed": seed, "train.steps": 600}),
            (),
        )
        for seed in (1, 2)
        for row, rate in enumerate((0.001, 0.002, 0.004))
    )
    return Study("lr", plan, runs)


@pytest.fixture
def results(study) -> list[Result]:
    """Of the first value both seeds, of the second one, and one that failed; none of the third."""
    first, second, third, first2, second2, third2 = study.runs
    return [
        Result(first, "done", {LOSS: 3.5, COPIED: 0.25}),
        Result(second, "done", {LOSS: 3.0}),
        Result(third, "queued"),
        Result(first2, "done", {LOSS: 3.6, COPIED: 0.75}),
        Result(second2, "failed", reason="train.lr: a|b"),
        Result(third2, "not run"),
    ]


def test_a_row_a_value_with_mean_and_range(study, results):
    assert as_markdown(study, results).splitlines() == [
        "| train.lr | val_loss | samples_copied | runs |",
        "| --- | --- | --- | --- |",
        "| 0.001 | 3.55 (3.5 to 3.6) | 0.5 (0.25 to 0.75) | 2 |",
        "| 0.002 | 3 |  | 1 of 2, 1 failed: train.lr: a\\|b |",
        "| 0.004 |  |  | 0 of 2 |",
    ]


def test_labels_have_a_column(study, results):
    rows = tuple(
        row.model_copy(update={"label": f"no. {i}"}) for i, row in enumerate(study.plan.vary)
    )
    labelled = replace(study, plan=study.plan.model_copy(update={"vary": rows}))
    assert as_markdown(labelled, results).splitlines()[2].startswith("| no. 0 | 0.001 | 3.55 ")


def test_measures_of_one_name_keep_their_places(study):
    twice = ("timing.train.seconds", "timing.evaluate.seconds", LOSS)
    plan = study.plan.model_copy(update={"measures": twice})
    header = as_markdown(replace(study, plan=plan), []).splitlines()[0]
    assert (
        header == "| train.lr | timing.train.seconds | timing.evaluate.seconds | val_loss | runs |"
    )


@pytest.mark.parametrize(
    ("values", "expected"),
    [([], ""), ([1.25], "1.25"), ([2.0, 2.0], "2"), ([1.0, 2.0], "1.5 (1 to 2)")],
)
def test_spread(values, expected):
    assert spread(values) == expected


def test_a_row_a_run_for_programs(study, results):
    table = pd.read_csv(io.StringIO(as_csv(study, results)))
    assert list(table["state"]) == ["done", "done", "queued", "done", "failed", "not run"]
    assert list(table["train.seed"]) == [1, 1, 1, 2, 2, 2]
    assert table[LOSS].count() == 3
    assert table["reason"].dropna().tolist() == ["train.lr: a|b"]
    nothing = [Result(run, "not run") for run in study.runs]
    assert table_of_runs(study, nothing)[LOSS].isna().all()


def test_the_same_results_give_the_same_picture(study, results):
    picture = draw(study, results)
    assert picture == draw(study, results)
    assert picture != draw(study, results[:1])
    assert "<dc:date>" not in picture
    assert ElementTree.fromstring(picture).tag == "{http://www.w3.org/2000/svg}svg"


@pytest.mark.parametrize("scale", ["linear", "category"])
def test_other_scales_are_drawn_as_well(study, results, scale):
    other = replace(study, plan=study.plan.model_copy(update={"scale": scale}))
    assert draw(other, results) != draw(study, results)


def test_a_page_is_made_and_what_a_person_wrote_is_kept(study, results, tmp_path):
    nothing = [Result(run, "not run") for run in study.runs]
    page = tmp_path / write_page(tmp_path, study, nothing)
    made = page.read_text()
    assert made.startswith("# Lr\n\nWhich rate?\n\n```sh\natlas study lr\n```\n")
    assert "0 of 6 runs of [studies/lr.yaml](../../studies/lr.yaml): `train.steps=600`; " in made
    assert not (page.parent / "lr.svg").exists()
    page.write_text(made.replace(BEGIN, f"Why: because.\n\n{BEGIN}") + "\nFound: much.\n")
    write_page(tmp_path, study, results)
    written = page.read_text()
    assert "Why: because.\n\n" in written
    assert written.endswith(f"{END}\n\nFound: much.\n")
    assert "3 of 6 runs" in written
    assert "0 of 6 runs" not in written
    assert "![evaluate.val_loss over train.lr](lr.svg)" in written
    assert (page.parent / "lr.svg").read_text() == draw(study, results)
    write_page(tmp_path, study, results)
    assert page.read_text() == written


def test_a_page_without_a_place_for_results_is_refused(study, results, tmp_path):
    page = tmp_path / "docs/studies/lr.md"
    page.parent.mkdir(parents=True)
    page.write_text("# Mine\n")
    with pytest.raises(AtlasError, match=r"docs/studies/lr.md: no lines <!-- results -->"):
        write_page(tmp_path, study, results)
    assert page.read_text() == "# Mine\n"


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        ("Running\nerror: lr: too high\nERROR: failed to reproduce 'train'\n", "lr: too high"),
        ("step 1\rstep 2\nKilled\n\n", "Killed"),
        ("", "it printed nothing"),
    ],
)
def test_the_reason_is_the_line_of_the_stage(tmp_path, printed, expected):
    log = tmp_path / "log"
    log.write_text(printed)
    assert reason_of(Entry("lr", "abc", "failed", log)) == expected
    assert reason_of(Entry("lr", "abc", "failed", Path("nowhere"))) == "it did not start"
