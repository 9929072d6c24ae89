"""What is read of a run, and what is said of what cannot be read."""

import math

import pytest

from atlas.errors import AtlasError
from atlas.tools.report.reading import Reader, readable
from atlas.tools.report.results import read_results
from tests.tools.report.made_up import make_project, png, write


@pytest.fixture
def metrics(tmp_path):
    return make_project(tmp_path)


def test_every_file_is_read(metrics):
    results = read_results(metrics)
    assert results.problems == ()
    assert results.number("evaluate", "val_accuracy") == 0.42
    assert results.timing["train"]["seconds"] == 155.63
    assert set(results.tables) >= {"train", "corpus/words", "tables/heads", "timing/train"}
    assert [picture.name for picture in results.pictures] == ["attention_layer-1"]
    empty = results.tables["tables/sources"].numbers("loss")
    assert empty[0] == 1.2
    assert math.isnan(empty[1])


def test_a_table_that_is_cut_off_keeps_its_whole_rows(metrics):
    write(metrics / "train.csv", "step,loss\n10,5\n20,4\n3")
    results = read_results(metrics)
    assert results.tables["train"].rows == (("10", "5"), ("20", "4"))
    assert results.problems == ("metrics/train.csv: 1 row does not fit the header",)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("train.json", '{"best_val_loss": 3.5', "no whole JSON"),
        ("train.json", "[" * 100_000, "no whole JSON"),
        ("train.json", "[1]", "no JSON object"),
        ("train.csv", "step,step\n1,2\n", "two columns of one name"),
        ("train.csv", "", "no header"),
        ("pictures/x.png", png().decode("latin-1")[:40], "no whole PNG picture"),
    ],
)
def test_what_is_broken_is_named_and_the_rest_is_there(metrics, name, content, problem):
    write(metrics / name, content)
    results = read_results(metrics)
    assert results.problems == (f"metrics/{name}: {problem}",)
    assert results.metrics["evaluate"]


def test_half_written_files_and_numbers_that_are_none_are_left_out(metrics):
    write(metrics / ".train.csv.partial", "step\n")
    write(metrics / ".evaluate.json", "{")
    write(metrics / "evaluate.json", '{"val_loss": NaN, "val_tokens": 3, "deep": {"a": 1}}')
    results = read_results(metrics)
    assert results.problems == ()
    assert results.metrics["evaluate"] == {"val_tokens": 3}


def test_a_folder_in_the_place_of_a_file_is_no_result(metrics):
    (metrics / "x.json").mkdir()
    assert read_results(metrics).problems == ()
    (metrics / "samples.md").unlink()
    (metrics / "samples.md").mkdir()
    assert read_results(metrics).problems == ("metrics/samples.md: Is a directory",)


def test_without_results_it_says_what_makes_them(tmp_path):
    with pytest.raises(AtlasError, match=r"no results yet; `dvc repro` makes them"):
        read_results(tmp_path)


def test_texts_become_readable():
    assert readable("a\x00b\x1b\x7f\t\n") == "a␀b␛␡\t\n"
    assert readable("\ud800x\x85\ufffe") == "\ufffdx\ufffd\ufffd"
    assert readable("a\r\nb") == "a\nb"
    assert readable("naïve ☃ 𝛼").encode() == "naïve ☃ 𝛼".encode()


def test_bytes_that_are_no_text_do_not_stop_it(tmp_path):
    (tmp_path / "words.csv").write_bytes(b"word,count\n\xff\xfe,3\n")
    table = Reader(tmp_path).table(tmp_path / "words.csv")
    assert table is not None
    assert table.texts("word") == ["\ufffd\ufffd"]
