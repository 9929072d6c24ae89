"""What a training logs, and what it writes while it learns."""

import math

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from atlas.errors import Stopped
from atlas.training.metrics import matmul_flops
from atlas.training.samples import Sampler, samples_page
from tests.training.conftest import CPU
from tests.training.runs import logs, stop_after


def events_of(folder):
    found = EventAccumulator(str(folder))
    found.Reload()
    return found


def scalars(folder, tag):
    return {event.step: event.value for event in events_of(folder).Scalars(tag)}


def test_each_row_says_where_training_is(training):
    run = training(batch_size=4, log_every=10)
    progress = run.run()
    row = progress.train_rows[1]
    assert row["step"] == 20
    assert row["tokens"] == 20 * 4 * 32
    assert row["epoch"] == pytest.approx(20 * 4 / run.data.per_epoch, abs=1e-4)
    assert row["perplexity"] == pytest.approx(math.exp(row["loss"]))
    mean = (progress.train_rows[0]["loss"] + row["loss"]) / 2
    assert row["loss_average"] == pytest.approx(mean)  # of the first fifty steps
    assert list(row) == [
        "step", "epoch", "tokens", "loss", "loss_average", "perplexity", "lr", "gradient_norm"
    ]  # fmt: skip
    assert all(row["flop_utilisation"] > 0 for row in progress.speed_rows)


def test_the_bar_shows_it_all(training, capsys, tmp_path):
    training(events=tmp_path / "events").run()
    shown = capsys.readouterr().err
    for part in ("loss ", "(average ", "ppl ", "val ", "lr ", "|g| ", "tok/s", "% of the machine"):
        assert part in shown


def test_tensorboard_has_the_same_numbers(training, tmp_path):
    progress = training(events=tmp_path / "events", sample=lambda: "a text").run()
    rows = {row["step"]: row for row in progress.train_rows}
    for key in ("loss", "loss_average", "perplexity", "lr", "gradient_norm", "epoch", "tokens"):
        found = scalars(tmp_path / "events", f"train/{key}")
        assert found == pytest.approx({step: row[key] for step, row in rows.items()}, rel=1e-6)
    val = scalars(tmp_path / "events", "val/loss")
    assert val == pytest.approx({row["step"]: row["loss"] for row in progress.val_rows})
    assert "speed/tokens_per_second" in events_of(tmp_path / "events").Tags()["scalars"]
    texts = events_of(tmp_path / "events").Tensors("sample/text_summary")
    assert [event.step for event in texts] == [0, 10, 20, 30]
    assert progress.samples == [(step, "a text") for step in (0, 10, 20, 30)]


def test_where_the_disk_takes_no_events_training_goes_on(training, tmp_path, monkeypatch, capsys):
    expected = training("whole").run()
    monkeypatch.setattr(SummaryWriter, "add_scalar", full)
    assert logs(training("run", events=tmp_path / "events").run()) == logs(expected)
    assert capsys.readouterr().err.count("no more events for TensorBoard (No space left") == 1
    monkeypatch.setattr("atlas.training.metrics.SummaryWriter", full)
    assert logs(training("again", events=tmp_path / "other").run()) == logs(expected)


def full(*_arguments, **_options):
    raise OSError("No space left on device")


def test_a_run_that_went_on_has_each_step_once(training, tmp_path, monkeypatch):
    whole = training("whole", events=tmp_path / "whole", log_every=5).run()
    monkeypatch.setenv("ATLAS_CHECKPOINT_SECONDS", "0")
    first = training("stopped", events=tmp_path / "stopped", log_every=5)
    stop_after(monkeypatch, first, 18)
    with pytest.raises(Stopped):
        first.run()
    training("stopped", events=tmp_path / "stopped", log_every=5).run()
    found = scalars(tmp_path / "stopped", "train/loss")
    assert found == pytest.approx({row["step"]: row["loss"] for row in whole.train_rows})


def test_a_new_run_in_the_same_folder_begins_anew(training, tmp_path):
    training("a", events=tmp_path / "events").run()
    training("b", events=tmp_path / "events", steps=10).run()
    assert list(scalars(tmp_path / "events", "train/loss")) == [7, 10]


def test_samples_are_the_same_for_the_same_weights(training, splits, tokenizer):
    run = training()
    model = run.learner.model.train()
    sampler = Sampler(model, tokenizer, splits["val"], 12)
    assert sampler() == sampler()
    assert model.training
    first = tokenizer.decode(splits["val"].read(0, 8).tolist())
    assert sampler().startswith(first)


def test_the_page_of_samples_is_a_table():
    page = samples_page([(0, "a\nb"), (10, "c | d")])
    assert page.splitlines() == [
        "| step | sample |",
        "| --- | --- |",
        "| 0 | a b |",
        "| 10 | c \\| d |",
    ]


def test_the_machine_multiplies():
    assert 1e8 < matmul_flops(CPU) < 1e15
