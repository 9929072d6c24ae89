"""Numbers, tables and charts behind the sections, and the run in words."""

import json
import re

import pytest
import yaml

from atlas.tools.report import tables
from atlas.tools.report.charts import accuracy_chart, calibration_chart, loss_chart
from atlas.tools.report.page import render
from atlas.tools.report.results import curve_values, read_history, read_results
from atlas.tools.report.tables import (
    cell,
    compact,
    duration,
    exact,
    measure,
    percent,
    size,
    spaced,
)
from tests.small import params_tree
from tests.tools.report.example_run import JSONS, make_project, png, text_of, write


@pytest.fixture
def metrics(tmp_path):
    return make_project(tmp_path)


@pytest.mark.parametrize(
    ("worded", "expected"),
    [
        (exact(1228800), "1,228,800"),
        (exact(35.9), "35.90"),
        (exact(3.0), "3"),
        (exact(8330.5), "8,330"),
        (exact(0.00015457), "0.0001546"),
        (exact(999.96), "1000"),
        (exact(True), "yes"),
        (exact("29 f16"), "29 f16"),
        (exact(None), ""),
        (exact(float("nan")), ""),
        (cell(-1500.0, "loss"), "-1,500"),
        (cell(0.25, "accuracy"), "25.0%"),
        (cell(1113760.0, "bytes"), "1.11 MB"),
        (cell("007", "bytes"), "007"),
        (compact(1000), "1,000"),
        (compact(120000), "120k"),
        (compact(1000576), "1.001M"),
        (compact(0.25), "0.25"),
        (compact(42), "42"),
        (percent(0.988), "98.8%"),
        (percent(0.99968), "99.97%"),
        (percent(1.0), "100%"),
        (percent(0.0123), "1.23%"),
        (percent(0.071, "+"), "+7.10%"),
        (percent(0.0), "0%"),
        (percent(0.99), "99.0%"),
        (percent(12.3456), "1,235%"),
        (measure("samples_copied", 0.09375), "9.38%"),
        (measure("val_accuracy", None), ""),
        (measure("val_loss", 3.5), "3.500"),
        (size(1113760), "1.11 MB"),
        (size(12), "12 B"),
        (size(2_000_000), "2.00 MB"),
        (size(999_700), "1,000 kB"),
        (duration(2.56), "2.56 s"),
        (duration(0.5), "0.500 s"),
        (duration(59.7), "1 min 0 s"),
        (duration(119.7), "2 min 0 s"),
        (duration(7260), "2 h 1 min"),
        (spaced("q8_0_tokens_per_second"), "q8_0 tokens/s"),
    ],
)
def test_numbers_are_worded_for_people(worded, expected):
    assert worded == expected


def words_of(tmp_path, **changes):
    """The page of a run with these params, as text."""
    metrics = tmp_path / "metrics"
    write(metrics / "fetch.json", '{"files": 1}')
    write(tmp_path / "params.yaml", yaml.safe_dump(params_tree(**changes), sort_keys=False))
    return " ".join(text_of(render(read_results(metrics), read_history(tmp_path, metrics))).split())


def test_the_run_is_described_in_words(tmp_path):
    words = words_of(tmp_path)
    assert (
        "decoder with 4 blocks of width 128, 4 query heads sharing 2 key-value heads, SwiGLU with "
        "352 hidden units, RMSNorm (pre-norm), rotary positions, context of 128 tokens, "
        "tied embeddings" in words
    )
    assert (
        "AdamW, peak learning rate 0.004, cosine schedule, batches of 8 windows, float32, seed 1"
        in words
    )
    assert "python-docs tokenizer" in words


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"corpus.name": "modular", "corpus.modular.operation": "divide"},
            "modular (operation divide, modulus 97)",
        ),
        (
            {"corpus.name": "mix", "corpus.mix": ["stories", {"name": "novels", "weight": 2}]},
            "mix (stories, novels weight 2)",
        ),
        ({"corpus.name": "gutenberg"}, "gutenberg (books 11, 2591, 1661)"),
        (
            {"model.kind": "encoder_decoder", "model.n_kv_head": 4, "model.tied_head": False},
            "encoder-decoder with 4 blocks of width 128, 4 heads, SwiGLU",
        ),
        ({"model.window": 16}, "context of 128 tokens, window of 16 tokens"),
        ({"model.kind": "two_layer", "model.window": 3}, "two-layer network over 3 tokens, width"),
        ({"model.kind": "bigram"}, "bigram model (counts)"),
        ({"train.optimizer": "muon"}, "Muon, peak learning rate 0.02"),
    ],
)
def test_descriptions_follow_the_params(tmp_path, changes, expected):
    assert expected in words_of(tmp_path, **changes)


def test_columns_of_numbers_are_found_by_their_cells(metrics):
    rows = ["a,b,c,d,text", "7,0.25,007,1,7", "1e3,,x,1_000,8"]
    write(metrics / "tables/mixed.csv", "\n".join(rows))
    table = tables.typed(read_results(metrics).tables["tables/mixed"])
    assert list(table.select_dtypes("number").columns) == ["a", "b"]
    assert table["a"].tolist() == [7, 1000]
    assert table["c"].tolist() == ["007", "x"]


def test_ngram_losses_are_in_nats_per_token(metrics):
    """Bits per byte become nats per token by the factor between them in this model."""
    results = read_results(metrics)
    assert tables.ngram_bits(results) == {"unigram": 3.1, "bigram": 2.3}
    factor = JSONS["evaluate"]["val_loss"] / JSONS["evaluate"]["val_bits_per_byte"]
    losses = tables.ngram_losses(results)
    assert losses == pytest.approx({"unigram": 3.1 * factor, "bigram": 2.3 * factor})
    svg = loss_chart(results).svg
    assert ">Unigram<" in svg
    assert ">Bigram<" in svg


def test_the_model_is_compared_with_ngrams(metrics):
    bits = tables.baselines(read_results(metrics))
    assert list(bits.index) == ["unigram", "bigram", tables.MODEL, tables.SLIDING]
    assert bits["bigram"] == JSONS["evaluate"]["val_bigram_bits_per_byte"]
    page = render(read_results(metrics), read_history(metrics.parent, metrics))
    assert "17.4% fewer bits than the best n-gram model." in page


@pytest.mark.parametrize(("last", "logarithmic"), [(4_000, False), (50_000, True)])
def test_a_long_run_has_logarithmic_steps(metrics, last, logarithmic):
    (metrics / "train.csv").unlink()
    write(metrics / "val.csv", f"step,loss\n0,5\n10,4\n100,3\n{last},2\n")
    chart = loss_chart(read_results(metrics))
    assert (">10,000<" in chart.svg) == logarithmic
    assert (">100<" in chart.svg) == logarithmic
    assert [name for _, name in chart.legend] == [f"val, best 2.000 at step {last:,}"]


def test_the_best_of_a_long_run_is_named(metrics):
    (metrics / "train.csv").unlink()
    losses = [3.0] * 1_200
    losses[701] = 1.0
    rows = [f"{step},{loss}" for step, loss in enumerate(losses, start=1)]
    write(metrics / "val.csv", "\n".join(["step,loss", *reversed(rows), "broken,0.5"]) + "\n")
    chart = loss_chart(read_results(metrics))
    assert [name for _, name in chart.legend] == ["val, best 1.000 at step 702"]


def test_a_very_long_run_stays_a_small_drawing(metrics):
    rows = [f"{step},{step % 7}" for step in range(50_000)]
    write(metrics / "train.csv", "\n".join(["step,loss", *rows]))
    (metrics / "val.csv").unlink()
    assert len(loss_chart(read_results(metrics)).svg) < 200_000


def test_curves_are_in_the_order_of_steps_without_gaps(metrics):
    write(metrics / "val.csv", "step,loss\n20,4\n10,5\nx,1\n30,\n40,1e300\n20,3\n")
    values = curve_values(read_results(metrics).tables["val"], "loss")
    assert values.to_dict() == {10: 5, 20: 3}
    assert curve_values(read_results(metrics).tables["val"], "missing").empty


def test_a_legend_names_each_curve_in_its_color(metrics):
    chart = accuracy_chart(read_results(metrics))
    assert [name for _, name in chart.legend] == [
        "train, 66.7% at the end",
        "val, 50.0% at the end",
    ]
    assert all(color in chart.svg for color, _ in chart.legend)


@pytest.mark.parametrize("rows", [["10,5"], ["10,5", "20,4"]])
def test_a_curve_needs_two_points(metrics, rows):
    (metrics / "train.csv").unlink()
    write(metrics / "val.csv", "\n".join(["step,loss,accuracy", *(f"{row},0.5" for row in rows)]))
    results = read_results(metrics)
    assert [chart is not None for chart in (loss_chart(results), accuracy_chart(results))] == [
        len(rows) > 1
    ] * 2


def test_one_point_or_cell_or_source_is_not_drawn(metrics):
    write(metrics / "tables/calibration.csv", "confidence,accuracy,tokens\n0.5,0.5,9\n")
    write(metrics / "tables/confusion.csv", "actual,predicted,count,share\na,a,3,1\n")
    write(metrics / "tables/sources.csv", "source,accuracy\nall,0.5\n")
    page = render(read_results(metrics), read_history(metrics.parent, metrics))
    assert "Confusion and calibration" not in page
    assert "By source" not in page


def test_errors_are_counted_in_the_order_of_numbers(metrics):
    results = read_results(metrics)
    counts, shares = tables.confusion(results)
    assert list(counts.columns) == list(counts.index) == ["2", "10"]
    assert counts.map(exact).values.tolist() == [["9", "1"], ["", "4"]]
    assert shares.values.tolist() == [[0.9, 0.1], [0, 1]]
    # (0.1 * 10 + 0.1 * 30 + 0.05 * 60) / 100
    assert calibration_chart(results).note.startswith("Off by 7.00% on average over 100 tokens")


def test_scores_of_heads_are_shares_of_their_columns(metrics):
    write(metrics / "tables/heads.csv", "layer,head,a_score,b,role\n0,0,0.5,4,x\n0,1,,-2,\n")
    scores, shares = tables.heads(read_results(metrics))
    assert list(scores.columns) == ["a score", "b"]
    assert list(scores.index) == ["0.0", "0.1"]
    assert shares.values.tolist() == [[0.5, 1], [0, 0.5]]


def test_of_many_heads_the_strongest_are_shown_with_a_picture_of_all(metrics):
    rows = [f"{n // 9},{n % 9},{n / 300},{1 - n / 300}," for n in range(270)]
    write(metrics / "tables/heads.csv", "\n".join(["layer,head,previous,first,role", *rows]))
    (metrics / "pictures/heads.png").write_bytes(png())
    results = read_results(metrics)
    scores, _ = tables.heads(results)
    assert len(scores) == 24
    assert scores.index[0] == "0.0"  # first: 1
    assert "Heads" in [title for title, *_ in tables.pictures(results, {})]
    page = render(results, read_history(metrics.parent, metrics))
    assert "The 24 of 270 heads with the highest scores." in page


FINE_TUNED = {
    "base_val_bits_per_byte": 2.375,
    "base_val_accuracy": 0.4,
    "general_bits_per_byte": 1.1,
    "base_general_bits_per_byte": 1.0,
    "general_accuracy": 0.86,
    "base_general_accuracy": 0.91,
}


def test_the_base_stands_beside_the_model(metrics):
    write(metrics / "evaluate.json", json.dumps(JSONS["evaluate"] | FINE_TUNED))
    results = read_results(metrics)
    assert list(tables.fine_tuning(results).itertuples(name=None)) == [
        ("val bits per byte", "2.375", "1.900", "-20.0%", "good"),
        ("val accuracy", "40.0%", "42.0%", "+2.00 points", "good"),
        ("general English, bits per byte", "1", "1.100", "+10.0%", "bad"),
        ("general English, accuracy", "91.0%", "86.0%", "-5.00 points", "bad"),
    ]
    page = render(results, read_history(metrics.parent, metrics))
    assert "Before and after fine-tuning" in page
    assert '<td class="number good">-20.0%</td>' in page


def test_without_a_base_nothing_is_compared(metrics):
    results = read_results(metrics)
    assert tables.fine_tuning(results).empty
    page = render(results, read_history(metrics.parent, metrics))
    assert "Before and after fine-tuning" not in page


def test_samples_are_grouped_with_their_prompts(metrics, tmp_path):
    params = {"evaluate.prompts": ["the lamp", "none of it"]}
    (note, prompted), free = tables.sample_groups(read_results(metrics), params)
    assert [prompt for prompt, _ in prompted] == ["the lamp", ""]
    assert prompted[0][1] == " sees\n\na stone"
    assert note == "At temperature 0.8."
    assert free == ("Freely:", [("", "one")])
    measured = tables.repetition(read_results(metrics))
    assert measured.values.tolist() == [[0.03, 0.12]]
    assert list(measured.index) == ["copied"]


def test_samples_of_the_base_have_prompts_too(metrics):
    page = "Note.\n\n    the lamp sees\n\nThe same prompts before fine-tuning:\n\n    the lamp is\n"
    write(metrics / "samples.md", page)
    _, (note, before) = tables.sample_groups(read_results(metrics), {"evaluate.prompts": ["the"]})
    assert (note, before) == ("The same prompts before fine-tuning:", [("the", " lamp is")])


def test_attention_maps_are_titled_by_prompt_and_wide_pictures_are_wide(metrics):
    (metrics / "pictures/attention-1.png").write_bytes(png(90, 30))
    (metrics / "pictures/heads.png").write_bytes(png())  # the page draws these scores itself
    params = {"evaluate.attention_prompts": [], "evaluate.prompts": ["the lamp"]}
    found = tables.pictures(read_results(metrics), params)
    assert [(title, wide) for title, _, wide in found] == [
        ("Attention 1: the lamp", True),
        ("Attention layer 1", False),
    ]


def test_exports_are_compared_by_file_and_runtime(metrics):
    table = tables.agreement(read_results(metrics))
    assert list(table.index) == ["", "q8_0"]
    assert table.loc["q8_0", "greedy_mismatches"] == 1
    assert exact(table.loc["q8_0", "token_mismatches"]) == ""


@pytest.mark.parametrize(
    ("before", "now", "higher", "expected"),
    [
        (3.5, 3.25, False, ("-7.14%", "good")),
        (3.5, 3.25, True, ("-7.14%", "bad")),
        (3.5, 7.0, None, ("+100%", "")),
        (0, 3, False, ("+3", "bad")),
        (1, 1, False, ("=", "")),
        (None, 1, False, ("new", "")),
        (1, None, False, ("removed", "")),
    ],
)
def test_changes_have_a_direction(before, now, higher, expected):
    assert tables.change(before, now, higher) == expected


def test_a_table_of_results_has_a_note_where_it_is_cut(metrics):
    page = render(read_results(metrics), read_history(metrics.parent, metrics))
    assert len(re.findall(r"The first 30 of 40\.", page)) == 1
