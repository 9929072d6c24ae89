"""The training loop on a model of seconds: exact resume, validation, when it ends."""

import pytest
import torch

from atlas.errors import AtlasError, Stopped
from atlas.model.storage import weights_of
from atlas.training.trainer import steps_of
from tests.small import small_params
from tests.training.runs import logs, same_weights, stop_after, with_losses


def test_training_learns(training):
    progress = training(dropout=0.0).run()
    assert progress.val_rows[0]["step"] == 0
    assert progress.best_loss < 0.8 * progress.val_rows[0]["loss"]
    assert [row["step"] for row in progress.val_rows] == [0, 10, 20, 30]
    assert [row["step"] for row in progress.train_rows] == [7, 14, 21, 28, 30]


@pytest.mark.parametrize(
    "changes", [{}, {"optimizer": "muon"}, {"optimizer": "sgd", "momentum": 0.9}]
)
@pytest.mark.parametrize("step", [1, 23])
def test_a_stopped_run_goes_on_as_if_nothing_had_happened(training, monkeypatch, step, changes):
    whole = training("whole", **changes)
    expected = whole.run()
    first = training("stopped", **changes)
    stop_after(monkeypatch, first, step)
    with pytest.raises(Stopped, match=f"stopped after step {step} of 30; .* goes on from there"):
        first.run()
    second = training("stopped", **changes)
    learn, steps = second.learner.learn, []
    monkeypatch.setattr(
        second.learner, "learn", lambda *given: steps.append(given[1]) or learn(*given)
    )
    progress = second.run()
    assert steps == list(range(step, 30))
    assert logs(progress) == logs(expected)
    assert same_weights(second.learner.model, whole.learner.model)
    assert second.checkpoints.best.read_bytes() == whole.checkpoints.best.read_bytes()


@pytest.mark.parametrize("step", [7, 10, 30])
def test_a_run_stopped_where_something_is_due_goes_on_the_same(training, monkeypatch, step):
    expected = training("whole").run()
    first = training("stopped")
    stop_after(monkeypatch, first, step)
    with pytest.raises(Stopped):
        first.run()
    assert logs(training("stopped").run()) == logs(expected)


def test_evaluating_and_sampling_more_often_changes_no_weight(training):
    seldom = training("seldom", eval_every=30)
    often = training("often", eval_every=3, sample=lambda: str(torch.rand(3)))
    seldom.run()
    often.run()
    assert same_weights(seldom.learner.model, often.learner.model)


def test_the_best_weights_are_kept_and_not_the_last(training, monkeypatch):
    run = training()
    with_losses(monkeypatch, run, [5.0, 3.0, 4.0, 4.5])
    progress = run.run()
    assert (progress.best_step, progress.best_loss, progress.worse) == (10, 3.0, 2)
    shorter = training("shorter")
    with_losses(monkeypatch, shorter, [5.0, 3.0])
    stop_after(monkeypatch, shorter, 10)
    with pytest.raises(Stopped):
        shorter.run()
    assert shorter.checkpoints.best.read_bytes() == run.checkpoints.best.read_bytes()


def test_without_a_better_val_loss_training_ends_early(training, monkeypatch):
    run = training(patience=2, log_every=9)
    with_losses(monkeypatch, run, [5.0, 4.0, 4.2, 4.1])
    progress = run.run()
    assert (progress.step, progress.best_step) == (30, 10)
    run = training("impatient", patience=1, log_every=9)
    with_losses(monkeypatch, run, [5.0, 4.0, 4.2, 3.0])
    progress = run.run()
    assert (progress.step, progress.best_step) == (20, 10)
    assert [row["step"] for row in progress.train_rows] == [9, 18, 20]


def test_stopped_where_it_would_have_ended_early_it_ends(training, monkeypatch):
    changes = {"patience": 1, "eval_every": 3, "log_every": 2}
    run = training(**changes)
    with_losses(monkeypatch, run, [5.0, 6.0])
    stop_after(monkeypatch, run, 3)
    with pytest.raises(Stopped):
        run.run()
    progress = training(**changes).run()
    assert [row["step"] for row in progress.train_rows] == [2, 3]


@pytest.mark.parametrize("broken", ["gradient", "loss"])
def test_what_is_not_finite_stops_before_the_update(training, monkeypatch, broken):
    monkeypatch.setenv("ATLAS_CHECKPOINT_SECONDS", "0")
    run = training(dropout=0.0)
    backward = run.learner.add_gradient
    before, steps = {}, iter(range(30))

    def break_it(batch):
        loss, tokens = backward(batch)
        if next(steps) == 12:
            before.update({k: v.clone() for k, v in weights_of(run.learner.model).items()})
            if broken == "loss":
                return loss * float("inf"), tokens
            run.learner.model.blocks[1].attention.key.weight.grad[0, 0] = float("nan")
        return loss, tokens

    monkeypatch.setattr(run.learner, "add_gradient", break_it)
    with pytest.raises(AtlasError) as error:
        run.run()
    message = str(error.value)
    assert "before the update of step 13: the loss is " in message
    assert "Lower train.lr" in message
    assert "\n" not in message
    if broken == "gradient":
        assert "norm of the gradient nan (windows " in message
        assert "largest gradients: blocks.1.attention.key.weight nan, " in message
        assert message.count("weight nan") == 1
    after = weights_of(run.learner.model)
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert run.checkpoints.newest_first()[0].name == "step-00000012"


def test_a_val_loss_that_is_not_finite_stops(training, monkeypatch):
    run = training()
    with_losses(monkeypatch, run, [5.0, float("nan")])
    with pytest.raises(AtlasError, match=r"stopped after step 10: the val loss is nan"):
        run.run()


def test_a_learning_rate_that_diverges_is_named(training):
    run = training(lr=1e4, max_grad_norm=None, warmup_steps=0, log_every=1, optimizer="sgd")
    with pytest.raises(
        AtlasError, match=r"(guessing would give 5\.99|before the update).*train.lr"
    ):
        run.run()


def test_another_seed_is_another_run(training):
    first, other = training("a", seed=1), training("b", seed=2)
    first.run()
    other.run()
    assert not same_weights(first.learner.model, other.learner.model)


def test_a_training_that_ended_is_not_done_again(training, monkeypatch):
    monkeypatch.setenv("ATLAS_CHECKPOINT_SECONDS", "0")
    expected = training().run()
    again = training()
    monkeypatch.setattr(again.learner, "learn", None)
    assert logs(again.run()) == logs(expected)


@pytest.mark.parametrize("value", ["often", "-5", "nan", "inf"])
def test_a_wrong_setting_is_named(training, monkeypatch, value):
    monkeypatch.setenv("ATLAS_CHECKPOINT_SECONDS", value)
    with pytest.raises(AtlasError, match=f"ATLAS_CHECKPOINT_SECONDS={value}"):
        training().run()


def test_epochs_take_the_place_of_steps(training):
    run = training(epochs=2, batch_size=4, steps=1)
    windows = run.data.per_epoch
    assert run.learner.steps == -(-2 * windows // 4)
    train = small_params(**{"train.epochs": 1, "train.warmup_steps": 9}).train
    assert steps_of(train, 36) == 9
    with pytest.raises(AtlasError, match=r"train.warmup_steps \(9\) is more than the 8 steps"):
        steps_of(train, 32)
