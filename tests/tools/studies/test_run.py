"""Running a study: what it refuses before anything starts."""

import shutil
import signal
import subprocess
import sys
import time

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


@pytest.fixture(scope="module")
def unchanged_study(unchanged_project, tmp_path_factory):
    """A DVC project with the study ``lr``."""
    root = tmp_path_factory.mktemp("study") / "project"
    shutil.copytree(unchanged_project, root)
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], cwd=root, check=True)
    (root / "studies/lr.yaml").write_text(yaml.safe_dump(SPEC))
    return root


@pytest.fixture
def study(unchanged_study, tmp_path):
    """A copy of it for a test."""
    return shutil.copytree(unchanged_study, tmp_path, dirs_exist_ok=True)


def test_without_any_run_a_page_stays_as_it_is(study):
    page = study / "docs/studies/lr.md"
    page.parent.mkdir(parents=True)
    page.write_text("the table of another clone")
    with pytest.raises(AtlasError, match="study lr: no run in this repository"):
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
    with pytest.raises(AtlasError, match="größe: DVC cannot run experiments if the path"):
        run_study(moved, "lr")


def test_a_second_study_is_rejected(study):
    with run._lock(study), pytest.raises(AtlasError, match="a study is running in this folder"):
        run_study(study, "lr")


PIPELINE = """
stages:
  evaluate:
    cmd: python measure.py
    params: [train]
    deps: [measure.py]
    metrics:
      - metrics/evaluate.json: {cache: false}
"""
MEASURE = """
import json, pathlib, sys, time, yaml
lr = yaml.safe_load(open("params.yaml"))["train"]["lr"]
time.sleep(3)
if lr > 2e-3:
    sys.exit("error: lr is too high")
pathlib.Path("metrics").mkdir(exist_ok=True)
pathlib.Path("metrics/evaluate.json").write_text(json.dumps({"val_loss": 1000 * lr}))
"""


@pytest.fixture
def quick_study(study):
    """The study ``lr`` on a pipeline with one stage; its second run fails."""
    (study / "dvc.yaml").write_text(PIPELINE)
    (study / "measure.py").write_text(MEASURE)
    for command in ("config user.name a", "config user.email a@example.org", "add -A"):
        subprocess.run(["git", *command.split()], cwd=study, check=True)
    subprocess.run(["git", "commit", "-qm", "a pipeline"], cwd=study, check=True)
    dvc(study, "exp", "run", "-q", "--queue", "--name", "theirs", "-S", "train.lr=0.1")
    params = study / "params.yaml"
    params.write_text(params.read_text() + "# edited\n")
    return study


def dvc(project, *arguments) -> str:
    command = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(command, cwd=project, check=True, capture_output=True, text=True).stdout


def user_state(project) -> list[str]:
    """Return everything of the user that a study may not change."""
    commands = ("symbolic-ref HEAD", "rev-parse HEAD", "stash list", "diff")
    run = [
        subprocess.run(["git", *each.split()], cwd=project, check=True, capture_output=True)
        for each in commands
    ]
    return [*(each.stdout.decode() for each in run), dvc(project, "queue", "status")]


@pytest.mark.slow
def test_a_study_runs_what_is_missing_and_names_what_failed(quick_study, capsys):
    before = user_state(quick_study)
    assert "theirs" in before[-1]
    with pytest.raises(AtlasError, match=r"1 of 2 runs failed: lr_0\.004_s1_"):
        run_study(quick_study, "lr")
    first = capsys.readouterr().out
    assert "lr: 2 runs, 0 done" in first
    assert "[2/2] lr_0.004_s1_" in first
    page = (quick_study / "docs/studies/lr.md").read_text()
    assert "| 0.001 | 1 | 1 |" in page
    assert "| 0.004 |  | 0 of 1, 1 failed: lr is too high |" in page
    assert user_state(quick_study) == before
    with pytest.raises(AtlasError, match="1 of 2 runs failed"):
        run_study(quick_study, "lr")
    second = capsys.readouterr().out
    assert "lr: 2 runs, 1 done" in second
    assert "lr_0.001" not in second


@pytest.mark.very_slow
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_study_that_is_ended_leaves_nothing_behind(quick_study, end):
    before = user_state(quick_study)
    code = "from pathlib import Path; from atlas.tools.studies.run import run_study; "
    process = subprocess.Popen(
        [sys.executable, "-c", code + "run_study(Path.cwd(), 'lr')"], cwd=quick_study
    )
    log = quick_study / run.CURRENT_LOG
    deadline = time.monotonic() + 120
    while not (log.is_file() and b"> python" in log.read_bytes()):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(end)
    process.wait(timeout=60)
    while True:  # DVC holds the lock until it has ended
        try:
            with run._lock(quick_study):
                break
        except AtlasError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert run.finished_experiments(quick_study) == set()
    assert list((quick_study / ".dvc/tmp/exps/standalone").glob("tmp*")) == []
    assert user_state(quick_study) == before
