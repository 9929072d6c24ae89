"""Tables, plots and pages from made-up results."""

from dataclasses import replace
from xml.etree import ElementTree

import pytest

from atlas.errors import AtlasError
from atlas.tools.studies.results import (
    BEGIN,
    END,
    RunResult,
    as_markdown,
    csv_rows,
    draw,
    failure,
    mean_and_range,
    write_page,
)
from atlas.tools.studies.study import Study, StudyRun, StudySpec
from tests.small import small_params

LOSS, COPIED = "evaluate.val_loss", "evaluate.samples_copied"


@pytest.fixture(scope="module")
def study() -> Study:
    spec = StudySpec.model_validate(
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
        StudyRun(
            f"lr_{rate}_s{seed}_0123abcd",
            row,
            seed,
            small_params(**{"train.lr": rate, "train.seed": seed, "train.steps": 600}),
            (),
        )
        for seed in (1, 2)
        for row, rate in enumerate((0.001, 0.002, 0.004))
    )
    return Study("lr", spec, runs)


@pytest.fixture
def results(study) -> list[RunResult]:
    """First value: both seeds; second: one seed and a failure; third: nothing."""
    first, second, third, first2, second2, third2 = study.runs
    return [
        RunResult(first, "done", {LOSS: 3.5, COPIED: 0.25}),
        RunResult(second, "done", {LOSS: 3.0}),
        RunResult(third, "not run"),
        RunResult(first2, "done", {LOSS: 3.6, COPIED: 0.75}),
        RunResult(second2, "failed", reason="train.lr: a|b"),
        RunResult(third2, "not run"),
    ]


def test_the_table_has_a_row_per_value_with_mean_and_range(study, results):
    assert as_markdown(study, results).splitlines() == [
        "| train.lr | val_loss | samples_copied | runs |",
        "| --- | --- | --- | --- |",
        "| 0.001 | 3.55 (3.5 to 3.6) | 0.5 (0.25 to 0.75) | 2 |",
        "| 0.002 | 3 |  | 1 of 2, 1 failed: train.lr: a\\|b |",
        "| 0.004 |  |  | 0 of 2 |",
    ]


def test_labels_have_a_column(study, results):
    rows = tuple(
        row.model_copy(update={"label": f"no. {i}"}) for i, row in enumerate(study.spec.vary)
    )
    labeled = replace(study, spec=study.spec.model_copy(update={"vary": rows}))
    assert as_markdown(labeled, results).splitlines()[2].startswith("| no. 0 | 0.001 | 3.55 ")


def test_measures_with_the_same_last_part_keep_their_full_names(study):
    measures = ("timing.train.seconds", "timing.evaluate.seconds", LOSS)
    spec = study.spec.model_copy(update={"measures": measures})
    header = as_markdown(replace(study, spec=spec), []).splitlines()[0]
    assert (
        header == "| train.lr | timing.train.seconds | timing.evaluate.seconds | val_loss | runs |"
    )


@pytest.mark.parametrize(
    ("values", "expected"),
    [([], ""), ([1.25], "1.25"), ([2.0, 2.0], "2"), ([1.0, 2.0], "1.5 (1 to 2)")],
)
def test_mean_and_range(values, expected):
    assert mean_and_range(values) == expected


def test_the_csv_has_a_row_per_run(study, results):
    table = csv_rows(study, results)
    assert [row["state"] for row in table] == [
        *("done", "done", "not run", "done", "failed", "not run"),
    ]
    assert [row["train.seed"] for row in table] == [1, 1, 1, 2, 2, 2]
    assert [row[LOSS] for row in table] == [3.5, 3.0, None, 3.6, None, None]
    assert [row["reason"] for row in table if row["reason"]] == ["train.lr: a|b"]


def test_equal_results_give_equal_plots(study, results):
    plot = draw(study, results)
    assert plot == draw(study, results)
    assert plot != draw(study, results[:1])
    assert "<dc:date>" not in plot
    assert ElementTree.fromstring(plot).tag == "{http://www.w3.org/2000/svg}svg"


@pytest.mark.parametrize("scale", ["linear", "category"])
def test_other_scales_are_drawn_as_well(study, results, scale):
    other = replace(study, spec=study.spec.model_copy(update={"scale": scale}))
    assert draw(other, results) != draw(study, results)


def test_a_new_page_is_made_and_an_edited_one_keeps_its_words(study, results, tmp_path):
    nothing = [RunResult(run, "not run") for run in study.runs]
    page = tmp_path / write_page(tmp_path, study, nothing)
    new = page.read_text()
    assert new.startswith("# Lr\n\nWhich rate?\n\n```sh\natlas study lr\n```\n")
    assert "0 of 6 runs of [studies/lr.yaml](../../studies/lr.yaml): `train.steps=600`; " in new
    assert not (page.parent / "lr.svg").exists()
    page.write_text(new.replace(BEGIN, f"Why: because.\n\n{BEGIN}") + "\nFound: much.\n")
    write_page(tmp_path, study, results)
    written = page.read_text()
    assert "Why: because.\n\n" in written
    assert written.endswith(f"{END}\n\nFound: much.\n")
    assert "3 of 6 runs" in written
    assert "0 of 6 runs" not in written
    assert "![evaluate.val_loss over train.lr](lr.svg)" in written
    header, first, *_ = (page.parent / "lr.csv").read_text().splitlines()
    assert header.startswith("experiment,label,train.lr,train.seed,state,evaluate.val_loss,")
    assert first == "lr_0.001_s1_0123abcd,0.001,0.001,1,done,3.5,0.25,"
    assert (page.parent / "lr.svg").read_text() == draw(study, results)
    write_page(tmp_path, study, results)
    assert page.read_text() == written


def test_a_page_without_marks_is_rejected(study, results, tmp_path):
    page = tmp_path / "docs/studies/lr.md"
    page.parent.mkdir(parents=True)
    page.write_text("# Mine\n")
    with pytest.raises(AtlasError, match=r"docs/studies/lr.md: add the lines <!-- results -->"):
        write_page(tmp_path, study, results)
    assert page.read_text() == "# Mine\n"


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        ("Running\nerror: lr: too high\nERROR: failed to reproduce 'train'\n", "lr: too high"),
        ("ERROR: Unable to acquire lock.\n\nHaving any troubles?\n", "Unable to acquire lock."),
        ("step 1\rstep 2\nKilled\n\n", "Killed"),
        ("", "no output"),
    ],
)
def test_the_reason_of_a_failure_is_one_line_of_its_log(tmp_path, printed, expected):
    log = tmp_path / "log"
    log.write_text(printed)
    assert failure(log) == expected
