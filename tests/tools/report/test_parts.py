"""Numbers, words and curves, by hand."""

import pytest

from atlas.tools.report.curves import MOST_POINTS, baselines, levels_of, loss_chart, thinned
from atlas.tools.report.data import pictures, texts
from atlas.tools.report.history import read_history
from atlas.tools.report.numbers import cell, compact, duration, exact, percent, rough, size
from atlas.tools.report.quality import quality
from atlas.tools.report.results import read_results
from atlas.tools.report.words import corpus_words, model_words, training_words
from tests.small import params_tree
from tests.tools.report.made_up import JSONS, make_project, png, write


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (exact(1228800), "1,228,800"),
        (exact(35.9), "35.90"),
        (exact(3.0), "3"),
        (exact(8330.5), "8,330"),
        (exact(0.00015457), "0.0001546"),
        (exact(999.96), "1000"),
        (exact(True), "yes"),
        (exact("29 f16"), "29 f16"),
        (cell("7"), "7"),
        (cell("0.25"), "0.2500"),
        (cell("nan"), "nan"),
        (cell("1+1"), "1+1"),
        (cell("007"), "007"),
        (cell("2024_01"), "2024_01"),
        (cell("-1.5e3"), "-1,500"),
        (compact(1000), "1,000"),
        (compact(120000), "120 k"),
        (compact(0.25), "0.25"),
        (rough(1000576), "1 M"),
        (rough(42), "42"),
        (percent(0.988), "98.8 %"),
        (percent(0.0123), "1.23 %"),
        (size(1113760), "1.11 MB"),
        (size(12), "12 B"),
        (duration(2.56), "2.56 s"),
        (duration(59.7), "1 min 0 s"),
        (duration(119.7), "2 min 0 s"),
        (duration(7260), "2 h 1 min"),
    ],
)
def test_numbers_are_told_as_people_read_them(told, expected):
    assert told == expected


def leaves(**changes):
    tree = params_tree(**changes)
    return {f"{a}.{b}": value for a, section in tree.items() for b, value in section.items()}


def test_a_run_in_words():
    params = leaves()
    assert model_words(params) == (
        "A decoder of 4 blocks, 128 wide, 4 heads on 2 of keys and values, SwiGLU of 352, "
        "RMSNorm before each part, rotary positions, a context of 128 tokens, "
        "head and embedding shared"
    )
    assert training_words(params) == (
        "AdamW at 0.004 (cosine), batches of 8 windows, float32, seed 1"
    )
    assert corpus_words(params) == "python-docs"
    modular = {"corpus.name": "modular", "corpus.modular.operation": "divide"}
    assert corpus_words(leaves(**modular)) == "modular, divide modulo 97"
    encoder = {"model.kind": "encoder_decoder", "model.n_kv_head": 4, "model.tied_head": False}
    words = model_words(leaves(**encoder, **{"model.window": 16}))
    assert words.startswith("An encoder-decoder of 4 blocks, 128 wide, 4 heads, SwiGLU")
    assert words.endswith("a context of 128 tokens, a window of 16")
    assert model_words(leaves(**{"model.kind": "bigram"})) == "A bigram model, counted"
    assert model_words({}) == training_words({}) == corpus_words({}) == ""


def test_thinned_curves_keep_their_ends():
    points = [(float(step), 1.0) for step in range(12_345)]
    kept = thinned(points)
    assert len(kept) <= MOST_POINTS + 1
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    assert thinned(points[:7]) == points[:7]
    assert thinned([]) == []


def test_counting_models_stand_beside_the_loss(tmp_path):
    """Bits per byte become nats a token by the factor that val itself has."""
    results = read_results(make_project(tmp_path))
    assert baselines(results) == {"unigram": 3.1, "bigram": 2.3}
    factor = JSONS["evaluate"]["val_loss"] / JSONS["evaluate"]["val_bits_per_byte"]
    levels = {level.name: level.height for level in levels_of(results)}
    assert levels == pytest.approx({"Unigram": 3.1 * factor, "Bigram": 2.3 * factor})
    (bars,) = next(each for each in quality(results) if each.anchor == "baselines").blocks
    assert [bar.label for bar in bars.bars] == [
        *("unigram", "bigram", "this model", "this model, windows that slide"),
    ]
    assert bars.note.startswith("17.4 % less")


@pytest.mark.parametrize(("last", "logarithmic"), [(4_000, False), (50_000, True)])
def test_a_long_run_has_logarithmic_steps(tmp_path, last, logarithmic):
    metrics = make_project(tmp_path)
    (metrics / "train.csv").unlink()
    write(metrics / "val.csv", f"step,loss\n0,5\n10,4\n100,3\n{last},2\n")
    chart = loss_chart(read_results(metrics))
    assert (">10,000<" in chart.svg) == logarithmic
    assert (">100<" in chart.svg) == logarithmic
    assert [line.name for line in chart.legend] == [f"val, best 2.000 at step {last:,}"]


def test_the_best_of_a_long_run_is_told_though_not_all_is_drawn(tmp_path):
    metrics = make_project(tmp_path)
    (metrics / "train.csv").unlink()
    losses = [3.0] * 1_200
    losses[701] = 1.0
    rows = [f"{step},{loss}" for step, loss in enumerate(losses, start=1)]
    write(metrics / "val.csv", "\n".join(["step,loss", *reversed(rows), "broken,0.5"]) + "\n")
    chart = loss_chart(read_results(metrics))
    assert [line.name for line in chart.legend] == ["val, best 1.000 at step 702"]


def test_errors_are_counted_in_the_order_of_numbers(tmp_path):
    results = read_results(make_project(tmp_path))
    section = next(each for each in quality(results) if each.anchor == "errors")
    heat, calibration = section.blocks
    assert list(heat.columns) == ["2", "10"]
    cells = [[(each.text, each.share) for each in row] for _, row in heat.rows]
    assert cells == [[("9", 0.9), ("1", 0.1)], [("", 0.0), ("4", 1.0)]]
    # (0.1 * 10 + 0.1 * 30 + 0.05 * 60) / 100
    assert calibration.note.startswith("Off by 7 % on average over 100 tokens")


def test_samples_stand_in_groups_with_their_prompts(tmp_path):
    metrics = make_project(tmp_path)
    write(tmp_path / "params.yaml", "evaluate: {prompts: [the lamp, none of it]}")
    section = texts(read_results(metrics), read_history(tmp_path, metrics))
    prompted, free, repeats = section.blocks
    assert [each.prompt for each in prompted.samples] == ["the lamp", ""]
    assert prompted.samples[0].text == " sees\n\na stone"
    assert (prompted.note, free.note) == ("At temperature 0.8.", "Freely:")
    assert [(each.prompt, each.text) for each in free.samples] == [("", "one")]
    assert repeats.rows == [("share of texts that are copies", "0.03000", "0.1200")]


def test_a_map_is_named_by_its_prompt_and_wide_pictures_are_wide(tmp_path):
    metrics = make_project(tmp_path)
    write(tmp_path / "params.yaml", "evaluate: {attention_prompts: [], prompts: [the lamp]}")
    (metrics / "pictures/attention-1.png").write_bytes(png(90, 30))
    (metrics / "pictures/heads.png").write_bytes(png())  # the page draws these scores itself
    section = pictures(read_results(metrics), read_history(tmp_path, metrics))
    assert [(each.title, each.wide) for each in section.blocks] == [
        ("Attention 1: the lamp", True),
        ("Attention layer 1", False),
    ]
