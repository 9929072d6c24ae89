"""Links, files and folders named in the documents exist."""

import re
import subprocess
from pathlib import Path

import pytest

from atlas.params.runtime_support import ARCHITECTURES, CLASSES
from tests.code_walk import ROOT

PAGES = sorted(ROOT.glob("*.md")) + sorted(ROOT.glob("docs/**/*.md"))
LINK = re.compile(r"\]\(([^)#\s]+)")
CODE_FILE = re.compile(r"`((?:[\w-]+/)*[\w-]+\.py)`")
FOLDER = re.compile(r"`((?:src|stages|tests|bench|presets|studies|docs)/[\w/-]*)`")


@pytest.fixture(scope="module")
def known() -> set[str]:
    listed = subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).split()
    return {f"/{file}" for file in listed}


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_are_not_broken(page):
    links = [link for link in LINK.findall(page.read_text()) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_named_files_and_folders_exist(page, known):
    text = page.read_text()
    missing = [
        name
        for name in CODE_FILE.findall(text)
        if not any(file.endswith(f"/{name}") for file in known)
    ]
    missing += [name for name in FOLDER.findall(text) if not (ROOT / name).exists()]
    assert missing == []


def test_the_readme_links_every_page_of_docs():
    linked = LINK.findall((ROOT / "README.md").read_text())
    pages = [name_of(page) for page in ROOT.glob("docs/*.md")]
    assert [page for page in pages if page not in linked] == []


def test_the_table_of_architectures_names_every_row():
    text = (ROOT / "docs/export.md").read_text().split("## Architectures")[1].split("\n## ")[0]
    missing = [row.name for row in (*ARCHITECTURES, *CLASSES) if f"`{row.name}`" not in text]
    assert missing == []
