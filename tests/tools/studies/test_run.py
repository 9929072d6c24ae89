"""Running a study: what it refuses before anything starts."""

import subprocess
import sys

import pytest
import yaml

from atlas.errors import AtlasError
from atlas.tools.studies import run
from atlas.tools.studies.run import list_studies, run_study, write_study

SPEC = {
    "question": "Which learning rate?",
    "vary": {"train.lr": [1e-3, 4e-3]},
    "seeds": [1],
    "measures": ["evaluate.val_loss"],
    "scale": "log",
}


@pytest.fixture
def study(project):
    """A DVC project with the study ``lr``."""
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], cwd=project, check=True)
    (project / "studies/lr.yaml").write_text(yaml.safe_dump(SPEC))
    return project


def test_without_any_run_a_page_stays_as_it_is(study):
    page = study / "docs/studies/lr.md"
    page.parent.mkdir(parents=True)
    page.write_text("the table of another clone")
    with pytest.raises(AtlasError, match="study lr: this repository has no run of it"):
        write_study(study, "lr")
    assert page.read_text() == "the table of another clone"


def test_the_list_shows_progress_and_invalid_studies(study, capsys):
    (study / "studies/wrong.yaml").write_text("question: Why?\n")
    list_studies(study)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["lr", "0", "of", "2", "Which", "learning", "rate?"] in lines
    assert any(line[:2] == ["wrong", "invalid"] for line in lines)


def test_a_path_that_dvc_cannot_handle_is_rejected(study):
    moved = study.rename(study.with_name("größe"))
    with pytest.raises(AtlasError, match="größe: DVC cannot run experiments in a folder"):
        run_study(moved, "lr")


def test_a_second_study_is_rejected(study):
    with run._lock(study), pytest.raises(AtlasError, match="a study is running in this folder"):
        run_study(study, "lr")
