"""Checkpoints are complete, few, and usable after damage or on a full disk; signals request one."""

import errno
import signal

import pytest
import torch

from atlas.errors import AtlasError, Stopped
from atlas.model.weights import weights_of
from atlas.training import checkpoint
from atlas.training.checkpoint import stop_requests
from atlas.training.metrics import TrainState
from tests.training.runs import logs, same_weights, stop_after


def stopped(new_trainer, monkeypatch, step, **changes):
    run = new_trainer(**changes)
    stop_after(monkeypatch, run, step)
    with pytest.raises(Stopped):
        run.fit()
    return run


def names(run):
    return sorted(path.name for path in run.checkpoints.folder.iterdir())


@pytest.mark.slow
def test_a_run_without_its_newest_checkpoint_ends_the_same(new_trainer, monkeypatch):
    monkeypatch.setenv("ATLAS_CHECKPOINT_SECONDS", "0")
    whole = new_trainer("whole")
    expected = whole.fit()
    first = stopped(new_trainer, monkeypatch, 17, folder="killed")
    newest, older = first.checkpoints.newest_first()
    assert (newest.name, older.name) == ("step-00000017", "step-00000016")
    (newest / "optimizer.pt").write_bytes((newest / "optimizer.pt").read_bytes()[:100])
    second = new_trainer("killed")
    assert logs(second.fit()) == logs(expected)
    assert same_weights(second.train_step.model, whole.train_step.model)


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["optimizer.pt", "model.safetensors", "trainer_state.json"])
def test_a_damaged_checkpoint_is_named_and_not_used(new_trainer, monkeypatch, caplog, damage):
    (written,) = stopped(new_trainer, monkeypatch, 5).checkpoints.newest_first()
    (written / damage).write_bytes(b"{")
    second = stopped(new_trainer, monkeypatch, 3)  # earlier than the damaged one
    said = caplog.text
    assert "step-00000005 is damaged" in said
    assert damage == "trainer_state.json" or f"the checksum of {damage} is wrong" in said
    assert [path.name for path in second.checkpoints.newest_first()] == ["step-00000003"]
    third, whole = new_trainer(), new_trainer("whole")
    assert logs(third.fit()) == logs(whole.fit())
    assert same_weights(third.train_step.model, whole.train_step.model)


def test_a_byte_that_changed_is_damage(new_trainer, monkeypatch, caplog):
    (written,) = stopped(new_trainer, monkeypatch, 5).checkpoints.newest_first()
    with (written / "model.safetensors").open("r+b") as file:
        file.seek(-9, 2)
        file.write(b"\x01\x02")
    assert new_trainer().fit().train_rows[0]["step"] == 7
    assert "the checksum of model.safetensors is wrong" in caplog.text


def test_a_complete_but_unreadable_checkpoint_is_refused(new_trainer, monkeypatch):
    (written,) = stopped(new_trainer, monkeypatch, 5).checkpoints.newest_first()
    (written / "optimizer.pt").write_bytes(b"of another time")
    monkeypatch.setattr(checkpoint, "find_damage", lambda _: "")
    with pytest.raises(AtlasError, match=r"intact but not readable .* remove it"):
        new_trainer().fit()
    assert written.is_dir()


def test_a_checkpoint_before_the_first_update_changes_nothing(new_trainer, tmp_path):
    """torch creates missing optimizer state by a step, which must not count as an update."""
    plain, saved = new_trainer("plain", dropout=0.0), new_trainer("saved", dropout=0.0)
    assert saved.checkpoints.save(saved.train_step, TrainState())
    assert not saved.train_step.optimizers.has_state()
    again = new_trainer("saved", dropout=0.0)
    again.checkpoints.resume(again.train_step)
    assert not again.train_step.optimizers.has_state()
    assert logs(again.fit()) == logs(plain.fit())


def test_checkpoints_are_kept_few(new_trainer, monkeypatch):
    monkeypatch.setenv("ATLAS_CHECKPOINT_SECONDS", "0")
    run = new_trainer()
    run.fit()
    assert names(run) == ["best.safetensors", "step-00000029", "step-00000030"]


@pytest.mark.slow
def test_training_continues_on_a_full_disk(new_trainer, monkeypatch, caplog):
    monkeypatch.setenv("ATLAS_CHECKPOINT_SECONDS", "0")
    whole = new_trainer("whole")
    expected = whole.fit()
    run, save = new_trainer(), torch.save

    def full(state, file):
        if "step-00000004" in names(run):
            raise OSError(errno.ENOSPC, "No space left on device")
        save(state, file)

    monkeypatch.setattr(torch, "save", full)
    assert logs(run.fit()) == logs(expected)
    assert names(run) == ["best.safetensors", "step-00000003", "step-00000004"]
    said = caplog.text
    assert "step-00000005: checkpoint not written ([Errno 28] No space left on device)" in said
    assert "the previous one is kept" in said
    monkeypatch.setattr(torch, "save", save)
    again = new_trainer()
    assert logs(again.fit()) == logs(expected)
    assert same_weights(again.train_step.model, whole.train_step.model)


def test_a_stop_on_a_full_disk_names_the_previous_checkpoint(new_trainer, monkeypatch):
    monkeypatch.setattr(torch, "save", lambda *_: 1 / 0)
    monkeypatch.setattr(checkpoint, "DISK_ERRORS", (ZeroDivisionError,))
    run = new_trainer()
    stop_after(monkeypatch, run, 3)
    with pytest.raises(Stopped, match="continues from the previous checkpoint"):
        run.fit()


@pytest.mark.slow
def test_best_weights_stay_in_memory_if_the_disk_is_full(new_trainer, monkeypatch, caplog):
    whole = new_trainer("whole")
    whole.fit()
    run, write, tries = new_trainer(), checkpoint.write_weights, iter(range(99))

    def full(weights, path):
        if next(tries) < 3:
            raise AtlasError(f"{path}: not written")
        write(weights, path)

    monkeypatch.setattr(checkpoint, "write_weights", full)
    run.fit()
    assert caplog.text.count("kept in memory") == 3
    assert run.checkpoints.best.read_bytes() == whole.checkpoints.best.read_bytes()


def write_outputs(run, state, folder, fails):
    """Write the model; the first ``fails`` attempts find a full disk."""
    attempts = iter(range(9))

    def write():
        if next(attempts) < fails:
            raise OSError(errno.ENOSPC, "No space left on device", "models/model")
        folder.mkdir(exist_ok=True)
        run.checkpoints.write_model(
            folder, run.model.config, weights_of(run.model), run.params.train
        )

    run.write_outputs(state, write, lambda: None)


def test_a_model_without_room_takes_that_of_an_older_checkpoint(new_trainer, monkeypatch, tmp_path):
    monkeypatch.setenv("ATLAS_CHECKPOINT_SECONDS", "0")
    run = new_trainer(steps=6)
    write_outputs(run, run.fit(), tmp_path / "model", fails=1)
    assert names(run) == ["best.safetensors", "step-00000006"]
    assert (tmp_path / "model/last.safetensors").exists()


def test_the_last_weights_survive_a_full_disk(new_trainer, tmp_path):
    run = new_trainer(steps=6)
    message = r"^models/model: not written \(No space.*\); free some .* from step 6 of 6$"
    with pytest.raises(AtlasError, match=message):
        write_outputs(run, run.fit(), tmp_path / "model", fails=2)
    assert names(run) == ["best.safetensors", "step-00000006"]
    again = new_trainer(steps=6)
    again.train_step.update = None  # no step is left
    write_outputs(again, again.fit(), tmp_path / "model", fails=0)
    assert same_weights(again.model, run.model)


def test_a_full_checkpoint_folder_does_not_cost_the_best_weights(
    new_trainer, monkeypatch, tmp_path
):
    whole, run = new_trainer("whole", steps=6), new_trainer(steps=6)
    write_outputs(whole, whole.fit(), tmp_path / "whole model", fails=0)

    def full(partial, final):
        raise OSError(errno.ENOSPC, "No space left on device", str(partial))

    monkeypatch.setattr(checkpoint, "put_in_place", full)
    state = run.fit()
    assert not run.checkpoints.best.exists()
    write_outputs(run, state, tmp_path / "model", fails=0)
    for name in ("model.safetensors", "last.safetensors"):
        ours, theirs = (tmp_path / each / name for each in ("model", "whole model"))
        assert ours.read_bytes() == theirs.read_bytes()
    with pytest.raises(AtlasError, match=r"continues from step 0 of 6$"):  # room for nothing
        write_outputs(run, state, tmp_path / "model", fails=2)


def test_a_checkpoint_of_another_model_is_refused(new_trainer, monkeypatch):
    stopped(new_trainer, monkeypatch, 5)
    with pytest.raises(AtlasError, match=r"of another model \(d_ff, norm differ\); remove it"):
        new_trainer(options={"d_ff": 96, "norm": "layernorm"}).fit()


def test_a_checkpoint_of_another_machine_is_used_with_a_note(new_trainer, monkeypatch, caplog):
    environment = checkpoint._environment
    monkeypatch.setattr(
        checkpoint, "_environment", lambda *given: environment(*given) | {"torch": "0.1"}
    )
    stopped(new_trainer, monkeypatch, 5)
    monkeypatch.undo()
    assert new_trainer().fit().step == 30
    assert "in another environment (torch 0.1, now 2" in caplog.text


SIGNALS = [signal.SIGINT, signal.SIGTERM]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_a_request(number):
    before = signal.getsignal(number)
    with stop_requests() as stops:
        assert not stops
        signal.raise_signal(number)
        assert stops == [number]
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", SIGNALS)
def test_a_second_signal_does_not_interrupt_stopping(number):
    with pytest.raises(Stopped), stop_requests():
        raise Stopped
    signal.raise_signal(number)


def test_signal_handlers_are_restored_after_an_error():
    with pytest.raises(OSError, match="gone"), stop_requests():
        raise OSError("gone")
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
