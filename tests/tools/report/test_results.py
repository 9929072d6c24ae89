"""Reading the results of a run, whole or damaged."""

import json
import math
import re

import pytest

from atlas.errors import AtlasError, one_line_errors
from atlas.tools.report.results import numbers, parse_table, read_results, readable
from atlas.tools.report.tables import print_results, print_summary
from tests.tools.report.example_run import JSONS, make_project, png, write


@pytest.fixture
def metrics(tmp_path):
    return make_project(tmp_path)


def test_every_file_is_read(metrics):
    results = read_results(metrics)
    assert results.problems == ()
    assert results.number("evaluate", "val_accuracy") == 0.42
    assert results.number("timing/train", "seconds") == 155.63
    assert set(results.tables) >= {"train", "corpus/words", "tables/heads", "timing/train"}
    assert list(results.pictures) == ["attention_layer-1"]
    empty = numbers(results.tables["tables/sources"]["loss"])
    assert empty[0] == 1.2
    assert math.isnan(empty[1])


def test_a_table_that_is_cut_off_keeps_its_whole_rows(metrics):
    write(metrics / "train.csv", "step,loss\n10,5\n20,4\n3")
    results = read_results(metrics)
    assert results.tables["train"].values.tolist() == [["10", "5"], ["20", "4"]]
    assert results.problems == ("metrics/train.csv: 1 row left out: wrong number of cells",)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("train.json", '{"best_val_loss": 3.5', "incomplete or damaged JSON"),
        ("train.json", "[" * 100_000, "incomplete or damaged JSON"),
        ("train.json", "[1]", "not a JSON object"),
        ("train.csv", "step,step\n1,2\n", "two columns have the same name"),
        ("train.csv", "", "no header"),
        ("pictures/x.png", png().decode("latin-1")[:40], "incomplete or damaged PNG"),
    ],
)
def test_damaged_files_are_named_and_the_rest_is_read(metrics, name, content, problem):
    write(metrics / name, content)
    results = read_results(metrics)
    assert results.problems == (f"metrics/{name}: {problem}",)
    assert results.metrics["evaluate"]


def test_half_written_files_and_nan_are_left_out(metrics):
    write(metrics / ".train.csv.partial", "step\n")
    write(metrics / ".evaluate.json", "{")
    write(metrics / "evaluate.json", '{"val_loss": NaN, "val_tokens": 3, "deep": {"a": 1}}')
    results = read_results(metrics)
    assert results.problems == ()
    assert results.metrics["evaluate"] == {"val_tokens": 3}


def test_a_folder_in_place_of_a_file_is_not_a_result(metrics):
    (metrics / "x.json").mkdir()
    assert read_results(metrics).problems == ()
    (metrics / "samples.md").unlink()
    (metrics / "samples.md").mkdir()
    assert read_results(metrics).problems == ("metrics/samples.md: Is a directory",)


def test_without_results_the_error_names_the_command(tmp_path):
    with pytest.raises(AtlasError, match=r"no results yet; run `dvc repro`"):
        read_results(tmp_path)


def test_control_characters_become_visible():
    assert readable("a\x00b\x1b\x7f\t\n") == "a␀b␛␡\t\n"
    assert readable("\ud800x\x85\ufffe") == "\ufffdx\ufffd\ufffd"
    assert readable("a\r\nb") == "a\nb"
    assert readable("naïve ☃ 𝛼").encode() == "naïve ☃ 𝛼".encode()


def test_bytes_that_are_not_text_are_replaced():
    table, problem = parse_table(b"word,count\n\xff\xfe,3\n")
    assert table["word"].tolist() == ["\ufffd\ufffd"]
    assert problem == ""


def test_long_cells_are_read():
    table, _ = parse_table(f"text,count\n{'x' * 200_000},3\n".encode())
    assert len(table["text"][0]) == 200_000


def test_show_all_prints_metrics_in_pipeline_order_and_samples(metrics, capsys):
    write(metrics / "another.json", '{"x\\u001b": "[bold]"}')
    print_results(metrics.parent)
    printed, warnings = capsys.readouterr()
    first = [line.split()[0] for line in printed.splitlines() if line[:1].strip()]
    assert first[:7] == [
        *("fetch", "clean", "tokenize", "tokenizer", "train", "evaluate", "export"),
    ]
    assert first[7] == "another"
    assert "val_perplexity" in printed
    assert "the lamp sees" in printed
    assert "[bold]" in printed
    assert "\x1b" not in printed
    assert warnings == ""


@pytest.mark.parametrize("show", [print_summary, print_results])
def test_show_leaves_out_damaged_files_with_a_warning(metrics, capsys, show):
    write(metrics / "train.json", "{")
    with one_line_errors():
        show(metrics.parent)
    printed, warnings = capsys.readouterr()
    assert "perplexity" in printed
    assert warnings == "warning: metrics/train.json: incomplete or damaged JSON\n"


def test_show_compares_the_model_with_its_base(metrics, capsys):
    base = {"base_val_bits_per_byte": 2.375, "base_val_accuracy": 0.4}
    write(metrics / "evaluate.json", json.dumps(JSONS["evaluate"] | base))
    print_summary(metrics.parent)
    lines = [re.split(r"\s{2,}", line.strip()) for line in capsys.readouterr().out.splitlines()]
    assert ["base", "fine-tuned", "difference"] in lines
    assert ["val bits per byte", "2.375", "1.900", "-20.0%"] in lines
    assert ["val accuracy", "40.0%", "42.0%", "+2.00 points"] in lines


def test_show_prints_ten_numbers_three_samples_and_what_to_try_next(metrics, capsys, monkeypatch):
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    (metrics.parent / "models/model").mkdir(parents=True)
    write(metrics / "report.html", "<html>")
    write(metrics / "evaluate.json", json.dumps(JSONS["evaluate"] | {"val_accuracy": 0.4242}))
    write(metrics / "export.json", json.dumps(JSONS["export"] | {"q8_0_bytes": 1, "f32_bytes": 9}))
    lines = "\n".join(["    line"] * 20)
    long = "\n\n".join(f"    sample {n}\n    \n{lines}" for n in range(5))
    write(metrics / "samples.md", f"Note.\n\n{long}\n\nWithout a prompt:\n\n    free\n")
    print_summary(metrics.parent)
    printed = capsys.readouterr().out
    numbers_shown, note, rest = printed.partition("\nNote.\n")
    rows = dict(re.split(r"\s{2,}", line) for line in numbers_shown.splitlines())
    assert rows == {
        "bits per byte, val": "1.900",
        "bits per byte of a bigram model, val": "2.300",
        "perplexity, val": "33.12",
        "accuracy, val": "42.4%",
        "parameters": "1,000,576",
        "tokens seen in training": "1,228,800",
        "training time": "2 min 36 s",
        "token mismatches in llama.cpp": "0",
        "Q8_0 file": "1 B",
    }
    assert note
    assert re.findall(r"sample \d|free", rest) == ["sample 0", "sample 1", "sample 2"]
    assert "Without" not in rest
    assert len(printed.splitlines()) < 70
    assert max(map(len, printed.replace(str(metrics.parent), "").splitlines())) <= 80
    for step in ("source .venv", "atlas chat", "dvc exp run", "data/own", "--all", "report.html"):
        assert step in rest


def test_show_inside_the_environment_does_not_activate_it_again(metrics, capsys, monkeypatch):
    monkeypatch.setenv("VIRTUAL_ENV", "/somewhere/.venv")
    (metrics.parent / "models/model").mkdir(parents=True)
    print_summary(metrics.parent)
    assert "activate" not in capsys.readouterr().out


def test_show_in_a_fresh_clone_prints_what_git_keeps(metrics, capsys):
    """Models, samples and timings are not in git."""
    (metrics / "samples.md").unlink()
    print_summary(metrics.parent)
    printed = capsys.readouterr().out
    assert printed.startswith("There is no models/model here yet")
    assert "perplexity, val" in printed
    assert "make " in printed
    assert "atlas chat" not in printed


def test_show_cuts_a_sample_of_one_long_line(metrics, capsys):
    write(metrics / "samples.md", f"Note.\n\n    {'word ' * 1000}\n")
    print_summary(metrics.parent)
    printed = capsys.readouterr().out
    assert 100 < printed.count("word") < 150
