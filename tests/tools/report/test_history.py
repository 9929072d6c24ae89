"""The origin of a run according to git, compared with DVC."""

import json
import subprocess

import pytest
import yaml
from dvc.repo import Repo

from atlas.tools.report.page import render
from atlas.tools.report.results import read_history, read_results
from atlas.tools.report.tables import compared
from tests.pipeline.checkout import Checkout
from tests.tools.report.example_run import make_project, text_of, write


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A project with results in its last commit, and other params and results now."""
    checkout = Checkout.create(tmp_path_factory.mktemp("history") / "project")
    for name, value in {"evaluate": {"val_loss": 3.5}, "timing/train": {"seconds": 2.5}}.items():
        write(checkout.root / f"metrics/{name}.json", json.dumps(value))
    checkout.git("add", "-A")
    checkout.git("add", "-f", "metrics/timing")  # which git ignores
    checkout.git("commit", "-qm", "Results, a 'subject' <with> signs")
    write(checkout.root / "metrics/evaluate.json", json.dumps({"val_loss": 3.25}))
    checkout.set(**{"train.lr": 0.001, "model.n_layer": 1})
    return checkout


def diff(checkout, kind):
    """The changes according to DVC."""
    with Repo(str(checkout.root)) as repo:
        return getattr(repo, kind).diff()["diff"]


def test_the_last_commit_agrees_with_dvc(checkout):
    history = read_history(checkout.root, checkout.root / "metrics")
    changes = diff(checkout, "params")["params.yaml"]
    assert {key: (old, new) for key, old, new in history.changed_params} == {
        key: (each["old"], each["new"]) for key, each in changes.items()
    }
    assert len(changes) == 2
    evaluate = diff(checkout, "metrics")["metrics/evaluate.json"]["val_loss"]
    assert history.commit.metrics["evaluate"]["val_loss"] == evaluate["old"] == 3.5
    assert history.commit.metrics["timing/train"] == {"seconds": 2.5}
    assert history.commit.sha == checkout.git("rev-parse", "HEAD").strip()
    assert history.commit.subject == "Results, a 'subject' <with> signs"
    assert history.edited == ("params.yaml",)
    assert evaluate["new"] == 3.25


def page_of(history, metrics):
    """The text of the page, words separated by one blank."""
    return " ".join(text_of(render(read_results(metrics), history)).split())


def test_changes_since_the_commit_are_compared(checkout):
    metrics = checkout.root / "metrics"
    history = read_history(checkout.root, metrics)
    table = compared(read_results(metrics), history.commit)
    assert list(table.index) == ["val_loss", "seconds"]
    assert table.loc["val_loss"].tolist() == [
        *("val loss, nats per token", 3.5, 3.25, "-7.14%", "good"),
    ]
    assert table.loc["seconds", "change"] == "="
    page = page_of(history, metrics)
    assert "val loss, nats per token 3.500 3.250 -7.14% One other metric is equal." in page
    assert "param last commit this run model.n_layer 2 1 train.lr" in page
    assert "-S model.n_layer=1 -S train.lr=0.001" in page


def test_a_run_equal_to_the_commit_says_so(checkout, tmp_path):
    checkout = checkout.copy(tmp_path / "copy")
    checkout.git("checkout", "--", "params.yaml", "metrics")
    history = read_history(checkout.root, checkout.root / "metrics")
    page = page_of(history, checkout.root / "metrics")
    assert "lists every change. Nothing differs." in page
    checkout.set(**{"train.lr": 0.001})
    history = read_history(checkout.root, checkout.root / "metrics")
    assert "No metric differs." in page_of(history, checkout.root / "metrics")


def test_params_edited_since_the_run_are_named(checkout, tmp_path):
    checkout = checkout.copy(tmp_path / "copy")
    params = yaml.safe_load((checkout.root / "params.yaml").read_text())
    ran = {"train.lr": 0.5, "train": params["train"] | {"lr": 0.5}}
    lock = {"stages": {"train": {"params": {"params.yaml": ran}}}}
    write(checkout.root / "dvc.lock", yaml.safe_dump(lock))
    metrics = checkout.root / "metrics"
    history = read_history(checkout.root, metrics)
    assert history.stale_params == [("train.lr", 0.5, 0.001)]
    assert "edited after this run: train.lr 0.5 → 0.001. Run dvc repro." in page_of(
        history, metrics
    )


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
    page = page_of(history, metrics)
    assert "Against the last commit" not in page
    assert "val perplexity" in page


def test_without_git_on_this_machine(tmp_path, monkeypatch):
    metrics = make_project(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert read_history(tmp_path, metrics).commit is None
