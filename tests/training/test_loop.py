"""The training loop on a model of seconds: exact resume, safety, accumulation."""

import itertools
import os
import signal

import pytest
import torch

from atlas.errors import AtlasError, Stopped
from atlas.model.decoder import Decoder
from atlas.model.initialise import initialise
from atlas.model.storage import weights_of
from atlas.tokens.batches import Batches
from atlas.tokens.split import TokenSplit
from atlas.tokens.windows import EvaluationWindows, TrainingWindows
from atlas.training import checkpoint, loop
from atlas.training.checkpoint import Checkpoints
from atlas.training.loop import Training
from tests.small import small_config, small_params, write_tokens


@pytest.fixture(scope="module")
def tokens(tmp_path_factory, tokenizer, documents):
    ids = [tokenizer.encode(document.text) for document in documents]
    splits = {"train": [ids[:80]], "val": [ids[80:]]}
    folder = write_tokens(tmp_path_factory.mktemp("tokens"), splits)
    return TokenSplit(folder, "train"), TokenSplit(folder, "val")


@pytest.fixture
def training(tokens, tmp_path):
    """Makes a training of 30 steps in a folder of its own."""

    def make(folder="run", dropout=0.1, **changes) -> Training:
        changes = {"steps": 30, "eval_every": 10, "log_every": 7, "lr": 0.01} | changes
        train = small_params(**{f"train.{key}": value for key, value in changes.items()}).train
        model = Decoder(small_config(dropout=dropout))
        initialise(model, train.seed)
        windows = TrainingWindows(tokens[0], 32, train.batch_size, train.seed)
        return Training(
            model,
            windows,
            EvaluationWindows(tokens[1], 32, 4),
            train,
            Checkpoints(tmp_path / folder),
        )

    return make


def same_weights(a: Decoder, b: Decoder) -> bool:
    ours, theirs = weights_of(a), weights_of(b)
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


def logs(progress):
    return progress.train_rows, progress.val_rows, progress.best_loss, progress.best_step


def stop_after(monkeypatch, training: Training, step: int) -> None:
    """Lets a signal come in the middle of a step."""
    do_step = training._step

    def interrupted(batch, optimizer, progress):
        if progress.step + 1 == step:
            os.kill(os.getpid(), signal.SIGINT)
        do_step(batch, optimizer, progress)

    monkeypatch.setattr(training, "_step", interrupted)


def test_training_learns(training):
    progress = training(dropout=0.0).run()
    assert progress.val_rows[0]["step"] == 0
    assert progress.best_loss < 0.8 * progress.val_rows[0]["loss"]
    assert [row["step"] for row in progress.val_rows] == [0, 10, 20, 30]
    assert [row["step"] for row in progress.train_rows] == [7, 14, 21, 28, 30]


@pytest.mark.parametrize("step", [1, 7, 10, 23, 30])
def test_a_stopped_run_goes_on_as_if_nothing_had_happened(training, monkeypatch, step):
    whole = training("whole")
    expected = whole.run()
    first = training("stopped")
    stop_after(monkeypatch, first, step)
    with pytest.raises(Stopped, match=f"stopped after step {step} of 30"):
        first.run()
    second = training("stopped")
    do_step, steps = second._step, []
    monkeypatch.setattr(
        second, "_step", lambda *given: steps.append(given[2].step) or do_step(*given)
    )
    progress = second.run()
    assert steps == list(range(step, 30))
    assert logs(progress) == logs(expected)
    assert same_weights(second.model, whole.model)
    assert second.checkpoints.best.read_bytes() == whole.checkpoints.best.read_bytes()


def test_signals_mean_what_they_did_before_again(training, monkeypatch):
    before = signal.getsignal(signal.SIGINT)
    run = training()
    stop_after(monkeypatch, run, 3)
    with pytest.raises(Stopped):
        run.run()
    assert signal.getsignal(signal.SIGINT) is before


def test_a_run_without_its_newest_checkpoints_ends_the_same(training, monkeypatch):
    monkeypatch.setenv("ATLAS_CHECKPOINT_SECONDS", "0")
    whole = training("whole")
    expected = whole.run()
    first = training("killed")
    stop_after(monkeypatch, first, 17)
    with pytest.raises(Stopped):
        first.run()
    newest, older = first.checkpoints._newest_first()
    assert (newest.name, older.name) == ("step-00000017", "step-00000016")
    (newest / "state.pt").write_bytes((newest / "state.pt").read_bytes()[:100])
    second = training("killed")
    assert logs(second.run()) == logs(expected)
    assert same_weights(second.model, whole.model)


@pytest.mark.parametrize("damage", ["state.pt", "model.safetensors", "progress.json"])
def test_a_damaged_checkpoint_is_named_and_not_used(training, monkeypatch, capsys, damage):
    first = training()
    stop_after(monkeypatch, first, 5)
    with pytest.raises(Stopped):
        first.run()
    (written,) = first.checkpoints._newest_first()
    (written / damage).write_bytes(b"{")
    second = training()
    stop_after(monkeypatch, second, 3)  # earlier than the damaged one
    with pytest.raises(Stopped):
        second.run()
    assert "step-00000005 is damaged" in capsys.readouterr().err
    assert [path.name for path in second.checkpoints._newest_first()] == ["step-00000003"]
    third, whole = training(), training("whole")
    assert logs(third.run()) == logs(whole.run())
    assert same_weights(third.model, whole.model)


def test_accumulation_is_the_whole_batch(training):
    gradients = []
    for parts in (1, 2, 4):
        run = training(f"parts{parts}", dropout=0.0, accumulation=parts)
        batch = next(Batches(run.data, torch.device("cpu"), 0).read())
        run._backward(batch)
        gradients.append([parameter.grad.clone() for parameter in run.model.parameters()])
    for other in gradients[1:]:
        for ours, theirs in zip(gradients[0], other, strict=True):
            assert torch.allclose(ours, theirs, atol=1e-6)


def test_evaluating_more_often_changes_no_weight(training):
    seldom, often = training("seldom", eval_every=30), training("often", eval_every=3)
    seldom.run()
    often.run()
    assert same_weights(seldom.model, often.model)


def test_the_best_weights_are_kept_and_not_the_last(training, monkeypatch):
    losses = iter([5.0, 3.0, 4.0, 4.5])
    monkeypatch.setattr(loop, "mean_loss", lambda *_: next(losses))
    run = training()
    progress = run.run()
    assert (progress.best_step, progress.best_loss) == (10, 3.0)
    best = run.checkpoints.best.read_bytes()
    shorter = training("shorter", steps=30)
    losses = iter([5.0, 3.0, 4.0, 4.5])
    stop_after(monkeypatch, shorter, 10)
    with pytest.raises(Stopped):
        shorter.run()
    assert shorter.checkpoints.best.read_bytes() == best


def test_a_loss_that_is_not_finite_stops_before_the_update(training, monkeypatch):
    monkeypatch.setenv("ATLAS_CHECKPOINT_SECONDS", "0")
    run = training(dropout=0.0)
    backward = run._backward
    before = {}
    steps = itertools.count()

    def broken(*given):
        loss = backward(*given)
        if next(steps) == 12:
            before.update({k: v.clone() for k, v in weights_of(run.model).items()})
            run.model.blocks[1].attention.key.weight.grad[0, 0] = float("nan")
        return loss

    monkeypatch.setattr(run, "_backward", broken)
    with pytest.raises(AtlasError) as error:
        run.run()
    message = str(error.value)
    assert "before the update of step 13" in message
    assert "norm of the gradient nan" in message
    assert "largest gradients: blocks.1.attention.key.weight nan, " in message
    assert message.count("weight nan") == 1
    assert "Lower train.lr" in message
    assert "\n" not in message
    assert all(torch.equal(value, weights_of(run.model)[key]) for key, value in before.items())
    assert run.checkpoints._newest_first()[0].name == "step-00000012"


def test_another_seed_is_another_run(training):
    first, other = training("a", seed=1), training("b", seed=2)
    first.run()
    other.run()
    assert not same_weights(first.model, other.model)


def test_checkpoints_are_kept_few(training, monkeypatch):
    monkeypatch.setenv("ATLAS_CHECKPOINT_SECONDS", "0")
    run = training()
    run.run()
    assert len(run.checkpoints._newest_first()) == 2
    assert not list(run.checkpoints.folder.glob(".*"))


def test_a_training_that_ended_is_not_done_again(training, monkeypatch):
    monkeypatch.setenv("ATLAS_CHECKPOINT_SECONDS", "0")
    expected = training().run()
    again = training()
    monkeypatch.setattr(again, "_backward", None)
    assert logs(again.run()) == logs(expected)


def test_a_val_loss_that_is_not_finite_stops(training, monkeypatch):
    losses = iter([5.0, float("nan")])
    monkeypatch.setattr(loop, "mean_loss", lambda *_: next(losses))
    with pytest.raises(AtlasError, match=r"stopped after step 10: the val loss is nan"):
        training().run()


def test_a_full_disk_names_the_checkpoint_and_leaves_the_one_before(training, monkeypatch):
    monkeypatch.setenv("ATLAS_CHECKPOINT_SECONDS", "0")
    run = training()
    save = torch.save

    def full(state, file):
        if run.checkpoints.folder.joinpath("step-00000004").exists():
            raise OSError(28, "No space left on device")
        save(state, file)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(AtlasError, match=r"step-00000005: checkpoint not written .*No space left"):
        run.run()
    names = [path.name for path in run.checkpoints.folder.iterdir()]
    assert sorted(names) == ["best.safetensors", "step-00000003", "step-00000004"]


def test_a_checkpoint_of_another_machine_is_used_and_said(training, monkeypatch, capsys):
    state = checkpoint._state
    monkeypatch.setattr(checkpoint, "_state", lambda *given: state(*given) | {"torch": "0.1"})
    first = training()
    stop_after(monkeypatch, first, 5)
    with pytest.raises(Stopped):
        first.run()
    assert training().run().step == 30
    assert (
        "the checkpoint is of cpu and torch 0.1, this is cpu and torch 2" in capsys.readouterr().err
    )


def test_a_wrong_setting_is_named(training, monkeypatch):
    monkeypatch.setenv("ATLAS_CHECKPOINT_SECONDS", "often")
    with pytest.raises(AtlasError, match="ATLAS_CHECKPOINT_SECONDS=often"):
        training().run()
