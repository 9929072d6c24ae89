"""The report and the page of `dvc plots` in a real browser without a network."""

import csv
import itertools
import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from atlas.cleaning.documents import SPLITS, Document
from atlas.errors import AtlasError
from atlas.tokens.encode import encode_corpus
from atlas.tokens.report import VocabularyReport
from atlas.tokens.train_tokenizer import train_tokenizer
from atlas.tools.report.page import PLOTS, write_offline_plots, write_report
from tests.browser import CONTRAST
from tests.code_walk import ROOT
from tests.small import small_params, write_documents
from tests.tools.report.example_run import make_project, png, write

SIZES = "(all) => all.map((each) => each.getBoundingClientRect()).map((r) => [r.width, r.height])"
LOADED = "(all) => all.map((each) => each.naturalWidth)"
READ = "p, dt, dd, th, td, li, a, h1, h2, h3, figcaption, pre, summary, footer, b, code, svg text"
DVC = """
plots:
  - curve: {x: step, y: {curve.csv: loss}, title: A curve}
  - picture.png
  - table.csv: {template: bar_horizontal, x: count, y: word}
  - points.csv: {template: scatter, x: a, y: b}
"""


HOSTILE = [
    "</script><img src=x onerror=alert(1)>",
    "</SCRIPT ><svg/onload=alert(2)>",
    "<!--<script>",
    "]]><![CDATA[<iframe src=javascript:alert(3)>",
    "</plaintext></template><meta http-equiv=refresh content=0;url=http://x.example>",
    "&lt;/script&gt;<b onmouseover=alert(4)>",
    "\"'`;alert(5);//{plot_divs}${alert(6)}",
    "two\nlines\u2028\0\u202ertl \\",
]
# As in revisions of other people: evaluate neutralizes the tags in the tables it writes.
HOSTILE_DVC = """
plots:
  - table.csv:
      {template: bar_horizontal, x: count, y: word, title: "</script><img src=x onerror=alert(7)>"}
  - picture.png
"""


@contextmanager
def opened(browser: Browser, address: str, width: int = 1280, **options) -> Iterator[Page]:
    """A page that loads only itself and files in its folder, without errors."""
    context = browser.new_context(viewport={"width": width, "height": 800}, **options)
    context.set_offline(True)
    page = context.new_page()
    requested: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("requestfailed", lambda request: complaints.append(request.url))
    page.on("dialog", lambda dialog: complaints.append(dialog.message) or dialog.dismiss())
    page.on("console", lambda said: said.type == "error" and complaints.append(said.text))
    try:
        page.goto(address)
        yield page
        folder = address.rpartition("/")[0]
        assert all(each.startswith((f"{folder}/", "data:")) for each in requested), requested
        assert complaints == []
    finally:
        context.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> str:
    root = tmp_path_factory.mktemp("report") / "project"
    metrics = make_project(root)
    header, *_ = (metrics / "tables/confusion.csv").read_text().splitlines()
    rows = [f"{a},{b},{a},{0.9 if a == b else 0.01}" for a in range(20) for b in range(20)]
    write(metrics / "tables/confusion.csv", "\n".join([header, *rows]))
    long = f"{'a' * 300},{'b' * 90},c"
    write(metrics / "tables/failures.csv", f"question,expected,answered\n{long}\n")
    return write_report(root).as_uri()


@pytest.mark.parametrize("width", [360, 1280])
def test_everything_shows_and_nothing_is_too_wide(browser, report, width):
    with opened(browser, report, width) as page:
        assert min(page.locator("img").evaluate_all(LOADED)) > 0
        drawings = page.locator("figure svg").evaluate_all(SIZES)
        assert len(drawings) >= 6
        assert all(wide > 250 and high > 120 for wide, high in drawings)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        boxes = page.locator(".card").evaluate_all(SIZES)
        assert all(0 < wide <= width for wide, _ in boxes)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast_in_light_and_dark(browser, report, scheme):
    with opened(browser, report, color_scheme=scheme) as page:
        ground = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        assert (min(map(int, re.findall(r"\d+", ground)[:3])) > 128) == (scheme == "light")
        ratios = page.evaluate(CONTRAST, READ)
        assert len(ratios) > 300
        assert min(ratios) >= 4.5  # WCAG's AA


def test_the_contents_lead_to_each_section(browser, report):
    with opened(browser, report, width=1280) as page:
        page.get_by_role("link", name="Timings").click()
        assert page.url.endswith("#timings")
        assert page.get_by_role("heading", name="Timings").is_visible()
        page.get_by_text("All metrics").click()
        assert page.get_by_role("cell", name="val_bits_per_byte").is_visible()


def spoil(metrics: Path) -> None:
    """Put HOSTILE texts into each table, metric, prompt and param of a run."""
    for name in ("train", "val", "timing/train"):  # numbers alone, and slow to draw
        (metrics / f"{name}.csv").unlink()
    texts = itertools.cycle(HOSTILE)
    for path in metrics.rglob("*.csv"):
        header, *rows = csv.reader(path.read_text().splitlines())
        rows = [
            [re.sub(r".*[a-z+].*", lambda _: next(texts), cell) for cell in row] for row in rows
        ]
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([header, *rows])
    for name in ("evaluate", "tokenizer", "timing/train", "another"):
        values = dict(zip(HOSTILE, reversed(HOSTILE), strict=True))
        if (path := metrics / f"{name}.json").exists():
            values |= json.loads(path.read_text()) | {"longest_pieces": " ".join(HOSTILE)}
        write(path, json.dumps(values))
    samples = "\n\n".join("    " + text.replace("\n", "\n    ") for text in HOSTILE)
    write(metrics / "samples.md", f"{HOSTILE[0]}\n\n{samples}\n")
    params = {"corpus": {"name": HOSTILE[0]}, "export": {"name": HOSTILE[1], "author": HOSTILE[2]}}
    params |= {
        "train": {"optimizer": HOSTILE[3]},
        "model": {"kind": HOSTILE[4], "norm": HOSTILE[5]},
    }
    write(metrics.parent / "params.yaml", json.dumps(params | {"evaluate": {"prompts": HOSTILE}}))
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", HOSTILE[0]]):
        subprocess.run(["git", *command], cwd=metrics.parent, check=True)
    write(metrics.parent / "params.yaml", json.dumps(params | {"evaluate": {"prompts": "<b>"}}))


def write_vocabulary_page(folder: Path, page: Path) -> None:
    """Write the page of a tokenizer that has learned the HOSTILE texts."""
    params = small_params(**{"tokenizer.vocab_size": 420})
    tokenizer = train_tokenizer([text + "\n" for text in HOSTILE] * 30, params.tokenizer)
    tokenizer.save(folder / "tokenizer")
    for split in SPLITS:
        write_documents(folder / "clean" / split, [Document("d", "s", "\n".join(HOSTILE))])
    index, counts = encode_corpus(
        folder / "clean", folder / "tokenizer", folder / "tokens", params.tokenize
    )
    VocabularyReport(tokenizer, index, counts).write_page(page, folder / "clean/val")


@pytest.mark.slow
def test_foreign_texts_stay_texts(browser, tmp_path):
    metrics = make_project(tmp_path / "project")
    spoil(metrics)
    write_vocabulary_page(tmp_path, metrics / "tokenizer.html")
    report = write_report(tmp_path / "project")
    for path, least in ((report, 20), (metrics / "tokenizer.html", 3)):
        with opened(browser, path.as_uri()) as page:
            assert page.url == path.as_uri()
            assert page.locator("script, iframe, [onload], [onmouseover], [onerror]").count() == 0
            assert page.locator("meta[http-equiv]").count() == 1
            assert page.content().count("&lt;/") >= least
            assert page.evaluate("document.documentElement.scrollWidth") <= 1280


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A small project of DVC with plots of several kinds."""
    root = tmp_path_factory.mktemp("plots") / "project"
    root.mkdir()
    for command in ("git init -q", "dvc init -q"):
        subprocess.run(command.split(), cwd=root, check=True)
    write(root / "dvc.yaml", DVC)
    write(root / "curve.csv", "step,loss\n1,5\n2,4\n3,3.5\n")
    write(root / "table.csv", "word,count\nlamp,3\nriver,5\n")
    write(root / "points.csv", "a,b\n1,2\n3,1\n")
    (root / "picture.png").write_bytes(png())
    return root


@pytest.mark.slow
def test_dvc_plots_draws_without_a_network(browser, project):
    assert write_offline_plots(project).endswith("without a network")
    shown = subprocess.run(["dvc", "plots", "show"], cwd=project, capture_output=True, check=True)
    assert shown.stdout.decode().strip().endswith("/dvc_plots/index.html")
    with opened(browser, (project / "dvc_plots/index.html").as_uri()) as page:
        page.locator("main > div svg.marks").nth(2).wait_for()
        drawn = "(all) => all.map((each) => each.querySelectorAll('svg.marks, img').length)"
        assert page.locator("main > div").evaluate_all(drawn) == [1, 1, 1, 1]
        pictures = page.locator("main svg.marks, main img").evaluate_all(SIZES)
        assert all(min(size) > 20 for size in pictures)
        assert min(page.locator("main img").evaluate_all(LOADED)) > 0
        assert page.locator("main figcaption").all_inner_texts() == ["workspace"]


@pytest.mark.slow
def test_nothing_that_dvc_plots_embeds_becomes_markup(browser, project):
    """Tables, titles and branches of someone else: the plots are drawn, and nothing else."""
    write_offline_plots(project)
    write(project / "dvc.yaml", HOSTILE_DVC)
    with (project / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["word", "count"], *((word, 3) for word in HOSTILE)])
    branch = "x</p><img/src=x/onerror=alert(8)>"
    for command in (["add", "-A"], ["commit", "-qm", "all"], ["branch", branch]):
        subprocess.run(["git", *command], cwd=project, check=True)
    subprocess.run(["dvc", "plots", "diff", "-q", "HEAD", branch], cwd=project, check=True)
    address = (project / "dvc_plots/index.html").as_uri()
    with opened(browser, address) as page:
        page.locator("main svg.marks").wait_for()
        assert page.locator("main > div").count() == 2
        assert page.locator("img").count() == page.locator("main figure > img").count() == 2
        assert page.locator("iframe, meta[http-equiv=refresh], b, [onload], [onerror]").count() == 0
        assert page.url == address


@pytest.mark.slow
def test_the_setting_belongs_to_this_clone(project):
    write_offline_plots(project)
    local = (project / ".dvc/config.local").read_text()
    assert PLOTS in local
    assert "plots" not in (project / ".dvc/config").read_text()
    told = subprocess.check_output(["dvc", "config", "plots.html_template"], cwd=project, text=True)
    assert told.strip() == PLOTS


def test_another_template_stays(project):
    subprocess.run(
        ["dvc", "config", "--local", "plots.html_template", "mine.html"], cwd=project, check=True
    )
    assert write_offline_plots(project).endswith("is already mine.html")
    assert "mine.html" in (project / ".dvc/config.local").read_text()


def test_git_ignores_it():
    assert f"/{PLOTS}" in (ROOT / ".dvc/.gitignore").read_text().split()
    assert "/metrics/report.html" in (ROOT / ".gitignore").read_text().split()


def test_without_dvc_the_error_names_the_command(tmp_path):
    with pytest.raises(AtlasError, match=r"\.dvc: missing; run `dvc init`"):
        write_offline_plots(tmp_path)
