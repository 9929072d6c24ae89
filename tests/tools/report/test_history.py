"""What git knows of a run, against what DVC says."""

import json
import subprocess

import pytest
import yaml
from dvc.repo import Repo

from atlas.tools.report.history import read_history
from atlas.tools.report.overview import comparison, overview
from atlas.tools.report.results import read_results
from tests.pipeline.checkout import Checkout
from tests.tools.report.made_up import make_project, write


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A project whose last commit has results; its params and results then changed."""
    checkout = Checkout.create(tmp_path_factory.mktemp("history") / "project")
    for name, value in {"evaluate": {"val_loss": 3.5}, "timing/train": {"seconds": 2.5}}.items():
        write(checkout.root / f"metrics/{name}.json", json.dumps(value))
    checkout.git("add", "-A")
    checkout.git("commit", "-qm", "Results, a 'subject' <with> signs")
    write(checkout.root / "metrics/evaluate.json", json.dumps({"val_loss": 3.25}))
    checkout.set(**{"train.lr": 0.001, "model.n_layer": 1})
    return checkout


def diff(checkout, kind):
    """What DVC says."""
    with Repo(str(checkout.root)) as repo:
        return getattr(repo, kind).diff()["diff"]


def test_the_last_commit_is_as_dvc_sees_it(checkout):
    history = read_history(checkout.root, checkout.root / "metrics")
    told = diff(checkout, "params")["params.yaml"]
    assert {key: (old, new) for key, old, new in history.changed_params} == {
        key: (each["old"], each["new"]) for key, each in told.items()
    }
    assert len(told) == 2
    evaluate = diff(checkout, "metrics")["metrics/evaluate.json"]["val_loss"]
    assert history.commit.metrics["evaluate"]["val_loss"] == evaluate["old"] == 3.5
    assert history.commit.metrics["timing/train"] == {"seconds": 2.5}
    assert history.commit.sha == checkout.git("rev-parse", "HEAD").strip()
    assert history.commit.subject == "Results, a 'subject' <with> signs"
    assert history.edited == ("params.yaml",)
    assert evaluate["new"] == 3.25


def test_changes_are_told_with_their_direction(checkout):
    metrics = checkout.root / "metrics"
    history = read_history(checkout.root, metrics)
    section = comparison(read_results(metrics), history)
    params, values = section.blocks
    assert [row[0] for row in params.rows] == ["model.n_layer", "train.lr"]
    rows = {row[0]: (row[1:], mood) for row, mood in zip(values.rows, values.moods, strict=True)}
    assert rows["Val loss, nats a token"] == (("3.500", "3.250", "-7.1 %"), "good")
    assert list(rows) == ["Val loss, nats a token"]
    assert values.note == "As in the last commit: training, seconds."


def test_what_was_edited_since_the_run_is_said(checkout, tmp_path):
    checkout = checkout.copy(tmp_path / "copy")
    params = yaml.safe_load((checkout.root / "params.yaml").read_text())
    ran = {"train.lr": 0.5, "train": params["train"] | {"lr": 0.5}}
    lock = {"stages": {"train": {"params": {"params.yaml": ran}}}}
    write(checkout.root / "dvc.lock", yaml.safe_dump(lock))
    metrics = checkout.root / "metrics"
    history = read_history(checkout.root, metrics)
    assert history.stale_params == [("train.lr", 0.5, 0.001)]
    told = [getattr(block, "text", "") for block in overview(read_results(metrics), history).blocks]
    assert "train.lr (0.5, now 0.001)" in told[-1]


def test_a_number_that_yaml_reads_as_text_has_not_changed(tmp_path):
    make_project(tmp_path)
    write(tmp_path / "params.yaml", "train: {lr: 3e-4}\n")
    ran = {"stages": {"train": {"params": {"params.yaml": {"train.lr": 0.0003}}}}}
    write(tmp_path / "dvc.lock", yaml.safe_dump(ran))
    assert read_history(tmp_path, tmp_path / "metrics").stale_params == []


@pytest.mark.parametrize("what", ["no git", "no commit", "broken"])
def test_without_a_commit_there_is_no_comparison(tmp_path, what, monkeypatch):
    metrics = make_project(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    if what == "no commit":
        subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    if what == "broken":
        write(tmp_path / "dvc.lock", "stages: [unfinished")
        write(tmp_path / "params.yaml", "- no\n- mapping\n")
    history = read_history(tmp_path, metrics)
    assert history.commit is None
    assert comparison(read_results(metrics), history) is None
    assert overview(read_results(metrics), history).blocks


def test_without_git_on_this_machine(tmp_path, monkeypatch):
    metrics = make_project(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert read_history(tmp_path, metrics).commit is None
