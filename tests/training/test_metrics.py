"""Curves, logs and files that a training run writes."""

import csv
import json
import math

import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from atlas.errors import Stopped
from atlas.training import metrics
from atlas.training.metrics import matmul_flops, sample_text, samples_page
from tests.training.conftest import CPU
from tests.training.runs import logs, stop_after


def events_of(folder):
    found = EventAccumulator(str(folder))
    found.Reload()
    return found


def scalars(folder, tag):
    return {event.step: event.value for event in events_of(folder).Scalars(tag)}


def test_each_row_has_the_step_of_training(new_trainer):
    run = new_trainer(batch_size=4, log_every=10)
    state = run.fit()
    row = state.train_rows[1]
    assert row["step"] == 20
    assert row["tokens"] == 20 * 4 * 32
    assert row["epoch"] == pytest.approx(20 * 4 / run.data.per_epoch, abs=1e-4)
    assert row["perplexity"] == pytest.approx(math.exp(row["loss"]))
    mean = (state.train_rows[0]["loss"] + row["loss"]) / 2
    assert row["loss_average"] == pytest.approx(mean)  # of the first fifty steps
    assert list(row) == [
        "step", "epoch", "tokens", "loss", "loss_average", "perplexity", "lr", "gradient_norm"
    ]  # fmt: skip
    assert all(row["flop_utilisation"] > 0 for row in state.speed_rows)


def test_the_bar_shows_it_all(new_trainer, capsys, tmp_path):
    new_trainer(events=tmp_path / "events").fit()
    shown = capsys.readouterr().err
    for part in ("loss ", "(average ", "ppl ", "val ", "lr ", "|g| ", "tok/s", "% of the machine"):
        assert part in shown


def test_tensorboard_has_the_same_numbers(new_trainer, tmp_path):
    state = new_trainer(events=tmp_path / "events", sample=lambda: "a text").fit()
    rows = {row["step"]: row for row in state.train_rows}
    for key in ("loss", "loss_average", "perplexity", "lr", "gradient_norm", "epoch", "tokens"):
        found = scalars(tmp_path / "events", f"train/{key}")
        assert found == pytest.approx({step: row[key] for step, row in rows.items()}, rel=1e-6)
    val = scalars(tmp_path / "events", "val/loss")
    assert val == pytest.approx({row["step"]: row["loss"] for row in state.val_rows})
    assert "speed/tokens_per_second" in events_of(tmp_path / "events").Tags()["scalars"]
    texts = events_of(tmp_path / "events").Tensors("sample/text_summary")
    assert [event.step for event in texts] == [0, 10, 20, 30]
    assert state.samples == [(step, "a text") for step in (0, 10, 20, 30)]


@pytest.mark.slow
def test_training_continues_if_the_disk_takes_no_events(new_trainer, tmp_path, monkeypatch, caplog):
    expected = new_trainer("whole").fit()
    monkeypatch.setattr(SummaryWriter, "add_scalar", full)
    assert logs(new_trainer("run", events=tmp_path / "events").fit()) == logs(expected)
    assert caplog.text.count("TensorBoard events stop here (No space left") == 1
    monkeypatch.setattr("atlas.training.metrics.SummaryWriter", full)
    assert logs(new_trainer("again", events=tmp_path / "other").fit()) == logs(expected)


def full(*_arguments, **_options):
    raise OSError("No space left on device")


@pytest.mark.slow
def test_a_resumed_run_has_each_step_once(new_trainer, tmp_path, monkeypatch):
    whole = new_trainer("whole", events=tmp_path / "whole", log_every=5).fit()
    monkeypatch.setenv("ATLAS_CHECKPOINT_SECONDS", "0")
    first = new_trainer("stopped", events=tmp_path / "stopped", log_every=5)
    stop_after(monkeypatch, first, 18)
    with pytest.raises(Stopped):
        first.fit()
    new_trainer("stopped", events=tmp_path / "stopped", log_every=5).fit()
    found = scalars(tmp_path / "stopped", "train/loss")
    assert found == pytest.approx({row["step"]: row["loss"] for row in whole.train_rows})


def rows_of(file):
    with file.open(encoding="utf-8") as lines:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(lines)]


def test_live_files_grow_while_training_runs(new_trainer, tmp_path, monkeypatch):
    monkeypatch.setattr(metrics, "LIVE_SECONDS", 0.0)
    live, seen = tmp_path / "live", []
    run = new_trainer(live=live, sample=lambda: seen.append(rows_of(live / "val.csv")) or "")
    state = run.fit()
    assert [[row["step"] for row in rows] for rows in seen] == [
        [0], [0, 10], [0, 10, 20], [0, 10, 20, 30]
    ]  # fmt: skip
    assert rows_of(live / "train.csv") == state.train_rows
    pd.testing.assert_frame_equal(pd.read_csv(live / "val.csv"), state.tables()["val"])
    latest = json.loads((live / "train.json").read_text())
    assert (latest["step"], latest["best_val_loss"]) == (30, state.best_loss)
    assert latest["loss"] == state.train_rows[-1]["loss"]


def test_a_resumed_run_keeps_its_live_curve(new_trainer, tmp_path, monkeypatch):
    live = tmp_path / "live"
    first = new_trainer(live=live)
    stop_after(monkeypatch, first, 18)
    with pytest.raises(Stopped):
        first.fit()
    assert [row["step"] for row in rows_of(live / "train.csv")] == [7, 14]
    (live / "train.csv").unlink()  # as the stage does when it starts
    state = new_trainer(live=live).fit()
    assert rows_of(live / "train.csv") == state.train_rows


@pytest.mark.slow
def test_training_continues_if_the_disk_takes_no_live_files(new_trainer, tmp_path, caplog):
    expected = new_trainer("whole").fit()
    (tmp_path / "file").write_text("")
    assert logs(new_trainer("run", live=tmp_path / "file/live").fit()) == logs(expected)
    assert caplog.text.count("live metrics stop here") == 1


@pytest.mark.slow
def test_a_new_run_in_the_same_folder_starts_over(new_trainer, tmp_path):
    new_trainer("a", events=tmp_path / "events").fit()
    new_trainer("b", events=tmp_path / "events", steps=10).fit()
    assert list(scalars(tmp_path / "events", "train/loss")) == [7, 10]


def test_samples_are_the_same_for_the_same_weights(new_trainer, splits, tokenizer):
    run = new_trainer()
    model = run.train_step.model.train()
    samples = [sample_text(model, tokenizer, splits["val"], 12) for _ in range(2)]
    assert samples[0] == samples[1]
    assert model.training
    first = tokenizer.decode(splits["val"].read(0, 8).tolist())
    assert samples[0].startswith(first)


def test_the_page_of_samples_is_a_table():
    page = samples_page([(0, "a\nb"), (10, "c | d")])
    assert page.splitlines() == [
        "| step | sample |",
        "| --- | --- |",
        "| 0 | a b |",
        "| 10 | c \\| d |",
    ]
    (row,) = samples_page([(0, "<img src=x> ![x](y) `z` &lt;")]).splitlines()[2:]
    assert row == "| 0 | &lt;img src=x> !\\[x](y) \\`z\\` &amp;lt; |"


def test_the_machine_multiplies(monkeypatch):
    monkeypatch.undo()  # the size that a run multiplies
    assert 1e8 < matmul_flops(CPU) < 1e15
