"""The page as text: its sections, and data that never becomes markup."""

import re
import shutil
from html.parser import HTMLParser

import pytest

from atlas.errors import AtlasError
from atlas.tools.report.page import write_report
from tests.tools.report.example_run import ODD, TABLES, make_project, write

VOID = {"meta", "link", "img", "br"}
MARKED = {"b", "i", "script"}


class Page(HTMLParser):
    """The elements of a page, all closed, with unique ids."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        assert self.open == []
        assert len(self.names) == len(set(self.names))

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.names += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.names += [value for name, value in attrs if name == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def sections(self) -> list[str]:
        return [each["id"] for each in self.attributes("section")]


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    make_project(tmp_path / "project")
    return tmp_path / "project"


def without_curves(project) -> None:
    """Remove what takes most of the time to draw."""
    for name in ("train", "val", "timing/train"):
        (project / f"metrics/{name}.csv").unlink()


def page_of(project) -> Page:
    return Page(write_report(project).read_text(encoding="utf-8"))


def test_all_sections_are_there_and_in_the_contents(project):
    page = page_of(project)
    assert page.sections() == [
        *("overview", "samples", "run_in_words", "curves", "baselines", "sources", "errors"),
        *("failures", "heads", "other_tables", "pictures", "vocabulary", "corpus", "export"),
        *("timings", "reproduce"),
    ]
    links = [each["href"] for each in page.attributes("a")]
    assert links == ["#main", *(f"#{name}" for name in page.sections())]


@pytest.mark.slow
def test_a_section_is_left_out_without_its_files(project):
    files = {
        "curves": ["train.csv", "val.csv"],
        "baselines": ["evaluate.json"],
        "samples": ["samples.md"],
        "sources": ["tables/sources.csv"],
        "errors": ["tables/confusion.csv", "tables/calibration.csv"],
        "failures": ["tables/failures.csv", "tables/edge_cases.csv"],
        "heads": ["tables/heads.csv"],
        "other_tables": ["tables/digits.csv"],
        "pictures": ["pictures"],
        "vocabulary": ["tokenizer.json"],
        "corpus": ["clean.json", "corpus", "fetch.json", "tokenize.json"],
        "timings": ["timing"],
        "export": ["export.json", "export.csv"],
    }
    left = page_of(project).sections()
    for section, names in files.items():
        for name in names:
            path = project / "metrics" / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        left.remove(section)
        if section == "export":  # with the last measure, the overview is empty
            left.remove("overview")
        assert page_of(project).sections() == left
    assert left == ["run_in_words", "reproduce"]  # of train.json


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_tables_of_any_length_make_a_page(project, kept):
    for name, lines in TABLES.items():
        write(project / f"metrics/{name}.csv", "\n".join(lines[:kept]))
    assert page_of(project).sections()[-1] == "reproduce"


@pytest.mark.parametrize("change", ["names", "cells", "words", "huge", "minus"])
def test_tables_of_any_content_make_a_page(project, change):
    for name, (header, *rows) in TABLES.items():
        cells = header.count(",") + 1
        lines = {
            "names": [re.sub(r"\w+", lambda found: f"{found[0]}_x", header), *rows],
            "cells": [header, *[",".join([""] * cells)] * 3],
            "words": [header, *[",".join(["word"] * cells)] * 3],
            "huge": [header, *[",".join(["1e99"] * cells)] * 3],
            "minus": [header, *[",".join(["-1"] * cells)] * 3],
        }[change]
        write(project / f"metrics/{name}.csv", "\n".join(lines))
    assert page_of(project).sections()[-1] == "reproduce"


@pytest.mark.parametrize("value", ['"text"', "true", "null", "[1]", "1e400", "0", "-1", "9" * 400])
def test_values_of_any_kind_make_a_page(project, value):
    without_curves(project)
    for path in (project / "metrics").rglob("*.json"):
        names = re.findall(r'"(\w+)":', path.read_text())
        write(path, "{" + ", ".join(f'"{name}": {value}' for name in names) + "}")
    assert page_of(project).sections()[-1] == "reproduce"


def test_nothing_in_a_file_becomes_markup(project):
    without_curves(project)
    quoted = f'"{ODD.replace(chr(34), chr(34) * 2)}"'
    for name, lines in TABLES.items():
        texts = [re.sub(r"[a-z]+(?=,|$)", lambda _: quoted, line) for line in lines[1:]]
        write(project / f"metrics/{name}.csv", "\n".join([lines[0], *texts]))
    write(project / "metrics/tokenizer.json", '{"vocab_size": 3, "longest_pieces": "<i>x</i>"}')
    write(project / "metrics/<script>.json", '{"<script>alert(1)</script>": "</style>\\ud800"}')
    write(project / "params.yaml", 'export: {name: "<i>\\0"}\ncorpus: {name: "</title>"}\n')
    page = page_of(project)
    tags = [tag for tag, _ in page.elements]
    assert not {"script", "i"} & set(tags)
    assert tags.count("b") == 3  # a prompt of each sample
    assert tags.count("style") == tags.count("title") == 1
    assert "<script>alert(1)</script>" in page.text
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]", page.text)


def test_a_picture_has_the_title_of_its_file(project):
    without_curves(project)
    (image,) = page_of(project).attributes("img")
    assert image["alt"] == "Attention layer 1"
    assert image["src"].startswith("data:image/png;base64,iVBOR")


def test_nothing_is_loaded_and_every_chart_is_described(project):
    page = page_of(project)
    text = (project / "metrics/report.html").read_text(encoding="utf-8")
    for tag, attributes in page.elements:
        for name in ("src", "href", "xlink:href", "data", "action"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), (tag, attributes)
    assert not re.search(r"url\((?!#)|@import", text)
    drawings = page.attributes("svg")
    assert len(drawings) >= 6
    assert all(each.get("aria-label") or each.get("aria-hidden") for each in drawings)


def test_the_same_results_give_the_same_bytes(project):
    first = write_report(project).read_bytes()
    assert write_report(project).read_bytes() == first
    assert b"Date" not in first


def test_failures_are_cut_after_thirty(project):
    without_curves(project)
    text = page_of(project).text
    assert "The first 30 of 40." in text
    assert "29+1" in text
    assert "30+1" not in text


def test_a_large_confusion_is_a_drawing(project):
    without_curves(project)
    lines = [f"{a},{b},1,0.02" for a in range(40) for b in range(40)]
    write(
        project / "metrics/tables/confusion.csv", "\n".join([TABLES["tables/confusion"][0], *lines])
    )
    labels = [each.get("aria-label") or "" for each in page_of(project).attributes("svg")]
    assert any("40 rows, 40 columns" in label for label in labels)


def test_problems_are_named_on_the_page(project):
    write(project / "metrics/train.csv", "step,loss\n1,2\n3")
    assert (
        "Not shown: metrics/train.csv: 1 row left out: wrong number of cells."
        in page_of(project).text
    )


def test_without_a_run_the_error_names_the_command(tmp_path):
    with pytest.raises(AtlasError, match="no results yet"):
        write_report(tmp_path)
