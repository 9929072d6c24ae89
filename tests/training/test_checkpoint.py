"""Checkpoints: whole, few, and of use when the newest is damaged or the disk is full."""

import errno

import pytest
import torch

from atlas.errors import AtlasError, Stopped
from atlas.training import checkpoint
from atlas.training import checkpoint as snapshot
from atlas.training.metrics import Progress
from tests.training.runs import logs, same_weights, stop_after


def stopped(training, monkeypatch, step, **changes):
    run = training(**changes)
    stop_after(monkeypatch, run, step)
    with pytest.raises(Stopped):
        run.run()
    return run


def names(run):
    return sorted(path.name for path in run.checkpoints.folder.iterdir())


def test_a_run_without_its_newest_checkpoint_ends_the_same(training, monkeypatch):
    monkeypatch.setenv("ATLAS_CHECKPOINT_SECONDS", "0")
    whole = training("whole")
    expected = whole.run()
    first = stopped(training, monkeypatch, 17, folder="killed")
    newest, older = first.checkpoints.newest_first()
    assert (newest.name, older.name) == ("step-00000017", "step-00000016")
    (newest / "state.pt").write_bytes((newest / "state.pt").read_bytes()[:100])
    second = training("killed")
    assert logs(second.run()) == logs(expected)
    assert same_weights(second.learner.model, whole.learner.model)


@pytest.mark.parametrize("damage", ["state.pt", "model.safetensors", "progress.json"])
def test_a_damaged_checkpoint_is_named_and_not_used(training, monkeypatch, capsys, damage):
    (written,) = stopped(training, monkeypatch, 5).checkpoints.newest_first()
    (written / damage).write_bytes(b"{")
    second = stopped(training, monkeypatch, 3)  # earlier than the damaged one
    said = capsys.readouterr().err
    assert "step-00000005 is damaged" in said
    assert damage == "progress.json" or f"{damage} is not what was written" in said
    assert [path.name for path in second.checkpoints.newest_first()] == ["step-00000003"]
    third, whole = training(), training("whole")
    assert logs(third.run()) == logs(whole.run())
    assert same_weights(third.learner.model, whole.learner.model)


def test_a_byte_that_changed_is_damage(training, monkeypatch, capsys):
    (written,) = stopped(training, monkeypatch, 5).checkpoints.newest_first()
    with (written / "model.safetensors").open("r+b") as file:
        file.seek(-9, 2)
        file.write(b"\x01\x02")
    assert training().run().train_rows[0]["step"] == 7
    assert "model.safetensors is not what was written" in capsys.readouterr().err


def test_what_is_whole_and_not_readable_is_refused(training, monkeypatch):
    (written,) = stopped(training, monkeypatch, 5).checkpoints.newest_first()
    (written / "state.pt").write_bytes(b"of another time")
    monkeypatch.setattr(checkpoint, "damage_of", lambda _: "")
    with pytest.raises(AtlasError, match=r"not readable though it is whole .* remove it"):
        training().run()
    assert written.is_dir()


def test_a_checkpoint_before_the_first_update_changes_nothing(training, tmp_path):
    """Asked for its state, an optimizer that has none makes one by a step that counts."""
    plain, saved = training("plain", dropout=0.0), training("saved", dropout=0.0)
    assert saved.checkpoints.save(saved.learner, Progress())
    assert not saved.learner.optimizers.have_begun()
    again = training("saved", dropout=0.0)
    again.checkpoints.resume(again.learner)
    assert not again.learner.optimizers.have_begun()
    assert logs(again.run()) == logs(plain.run())


def test_checkpoints_are_kept_few(training, monkeypatch):
    monkeypatch.setenv("ATLAS_CHECKPOINT_SECONDS", "0")
    run = training()
    run.run()
    assert names(run) == ["best.safetensors", "step-00000029", "step-00000030"]


def test_training_goes_on_when_the_disk_is_full(training, monkeypatch, capsys):
    monkeypatch.setenv("ATLAS_CHECKPOINT_SECONDS", "0")
    whole = training("whole")
    expected = whole.run()
    run, save = training(), torch.save

    def full(state, file):
        if "step-00000004" in names(run):
            raise OSError(errno.ENOSPC, "No space left on device")
        save(state, file)

    monkeypatch.setattr(torch, "save", full)
    assert logs(run.run()) == logs(expected)
    assert names(run) == ["best.safetensors", "step-00000003", "step-00000004"]
    said = capsys.readouterr().err
    assert "step-00000005: checkpoint not written ([Errno 28] No space left on device)" in said
    assert "the one before stays" in said
    monkeypatch.setattr(torch, "save", save)
    again = training()
    assert logs(again.run()) == logs(expected)
    assert same_weights(again.learner.model, whole.learner.model)


def test_stopped_on_a_full_disk_it_does_not_promise_too_much(training, monkeypatch):
    monkeypatch.setattr(torch, "save", lambda *_: 1 / 0)
    monkeypatch.setattr(checkpoint, "FULL_DISK", (ZeroDivisionError,))
    run = training()
    stop_after(monkeypatch, run, 3)
    with pytest.raises(Stopped, match="goes on from the checkpoint before"):
        run.run()


def test_best_weights_that_the_disk_does_not_take_are_kept_in_memory(training, monkeypatch, capsys):
    whole = training("whole")
    whole.run()
    run, write, tries = training(), checkpoint.write_weights, iter(range(99))

    def full(weights, path):
        if next(tries) < 3:
            raise AtlasError(f"{path}: not written")
        write(weights, path)

    monkeypatch.setattr(checkpoint, "write_weights", full)
    run.run()
    assert capsys.readouterr().err.count("kept in memory") == 3
    assert run.checkpoints.best.read_bytes() == whole.checkpoints.best.read_bytes()


def test_a_checkpoint_of_another_model_is_refused(training, monkeypatch):
    stopped(training, monkeypatch, 5)
    with pytest.raises(AtlasError, match=r"of another model \(d_ff, norm differ\); remove it"):
        training(options={"d_ff": 96, "norm": "layernorm"}).run()


def test_a_checkpoint_of_another_machine_is_used_and_said(training, monkeypatch, capsys):
    made_with = snapshot._made_with
    monkeypatch.setattr(snapshot, "_made_with", lambda *given: made_with(*given) | {"torch": "0.1"})
    stopped(training, monkeypatch, 5)
    monkeypatch.undo()
    assert training().run().step == 30
    assert "made otherwise (torch 0.1, now 2" in capsys.readouterr().err
