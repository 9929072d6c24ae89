"""The training loop on a tiny model: exact resume, validation, the end of a run."""

import shutil
import time
from copy import copy
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from atlas.errors import AtlasError, Stopped
from atlas.model.weights import weights_of
from atlas.tokens.shards import CorpusSize, TokenIndex, TokenSplit
from atlas.tokens.windows import TokenBatch
from atlas.training.trainer import corpora_seen, total_steps
from tests.small import small_params
from tests.training.runs import logs, same_weights, stop_after, with_losses


def test_training_learns(new_trainer):
    state = new_trainer(dropout=0.0).fit()
    assert state.val_rows[0]["step"] == 0
    assert state.best_loss < 0.8 * state.val_rows[0]["loss"]
    assert [row["step"] for row in state.val_rows] == [0, 10, 20, 30]
    assert [row["step"] for row in state.train_rows] == [7, 14, 21, 28, 30]


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes", [{}, {"optimizer": "muon"}, {"optimizer": "sgd", "momentum": 0.9}]
)
@pytest.mark.parametrize("step", [1, 23])
def test_a_stopped_run_resumes_exactly(new_trainer, monkeypatch, step, changes):
    whole = new_trainer("whole", **changes)
    expected = whole.fit()
    first = new_trainer("stopped", **changes)
    stop_after(monkeypatch, first, step)
    with pytest.raises(Stopped, match=f"stopped after step {step} of 30; .* continues from there"):
        first.fit()
    second = new_trainer("stopped", **changes)
    learn, steps = second.train_step.update, []
    monkeypatch.setattr(
        second.train_step, "update", lambda *given: steps.append(given[1]) or learn(*given)
    )
    state = second.fit()
    assert steps == list(range(step, 30))
    assert logs(state) == logs(expected)
    assert same_weights(second.train_step.model, whole.train_step.model)
    assert second.checkpoints.best.read_bytes() == whole.checkpoints.best.read_bytes()


@pytest.mark.parametrize("step", [7, 10, 30])
def test_a_run_stopped_at_a_validation_resumes_exactly(new_trainer, monkeypatch, step):
    expected = new_trainer("whole").fit()
    first = new_trainer("stopped")
    stop_after(monkeypatch, first, step)
    with pytest.raises(Stopped):
        first.fit()
    assert logs(new_trainer("stopped").fit()) == logs(expected)


@pytest.mark.slow
def test_evaluating_and_sampling_more_often_changes_no_weight(new_trainer):
    seldom = new_trainer("seldom", eval_every=30)
    often = new_trainer("often", eval_every=3, sample=lambda: str(torch.rand(3)))
    seldom.fit()
    often.fit()
    assert same_weights(seldom.train_step.model, often.train_step.model)


def test_the_best_weights_are_kept_and_not_the_last(new_trainer, monkeypatch):
    run = new_trainer()
    with_losses(monkeypatch, run, [5.0, 3.0, 4.0, 4.5])
    state = run.fit()
    assert (state.best_step, state.best_loss, state.evals_since_best) == (10, 3.0, 2)
    shorter = new_trainer("shorter")
    with_losses(monkeypatch, shorter, [5.0, 3.0])
    stop_after(monkeypatch, shorter, 10)
    with pytest.raises(Stopped):
        shorter.fit()
    assert shorter.checkpoints.best.read_bytes() == run.checkpoints.best.read_bytes()


def test_without_a_better_val_loss_training_ends_early(new_trainer, monkeypatch):
    run = new_trainer(patience=2, log_every=9)
    with_losses(monkeypatch, run, [5.0, 4.0, 4.2, 4.1])
    state = run.fit()
    assert (state.step, state.best_step) == (30, 10)
    run = new_trainer("impatient", patience=1, log_every=9)
    with_losses(monkeypatch, run, [5.0, 4.0, 4.2, 3.0])
    state = run.fit()
    assert (state.step, state.best_step) == (20, 10)
    assert [row["step"] for row in state.train_rows] == [9, 18, 20]


def test_stopped_where_it_would_have_ended_early_it_ends(new_trainer, monkeypatch):
    changes = {"patience": 1, "eval_every": 3, "log_every": 2}
    run = new_trainer(**changes)
    with_losses(monkeypatch, run, [5.0, 6.0])
    stop_after(monkeypatch, run, 3)
    with pytest.raises(Stopped):
        run.fit()
    state = new_trainer(**changes).fit()
    assert [row["step"] for row in state.train_rows] == [2, 3]


@pytest.mark.parametrize("broken", ["gradient", "loss"])
def test_a_non_finite_loss_stops_before_the_update(new_trainer, monkeypatch, broken):
    monkeypatch.setenv("ATLAS_CHECKPOINT_SECONDS", "0")
    run = new_trainer(dropout=0.0)
    backward = run.train_step.backward
    before, steps = {}, iter(range(30))

    def break_it(batch):
        loss, tokens = backward(batch)
        if next(steps) == 12:
            before.update({k: v.clone() for k, v in weights_of(run.train_step.model).items()})
            if broken == "loss":
                return loss * float("inf"), tokens
            run.train_step.model.blocks[1].attention.key.weight.grad[0, 0] = float("nan")
        return loss, tokens

    monkeypatch.setattr(run.train_step, "backward", break_it)
    with pytest.raises(AtlasError) as error:
        run.fit()
    message = str(error.value)
    assert "before the update of step 13: the loss is " in message
    assert "Lower train.lr" in message
    assert "\n" not in message
    if broken == "gradient":
        assert "norm of the gradient nan (windows " in message
        assert "largest gradients: blocks.1.attention.key.weight nan, " in message
        assert message.count("weight nan") == 1
    after = weights_of(run.train_step.model)
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert run.checkpoints.newest_first()[0].name == "step-00000012"


def test_a_non_finite_val_loss_stops(new_trainer, monkeypatch):
    run = new_trainer()
    with_losses(monkeypatch, run, [5.0, float("nan")])
    with pytest.raises(AtlasError, match=r"stopped after step 10: the val loss is nan"):
        run.fit()


def test_a_learning_rate_that_diverges_is_named(new_trainer):
    run = new_trainer(lr=1e4, max_grad_norm=None, warmup_share=0.0, log_every=1, optimizer="sgd")
    with pytest.raises(
        AtlasError, match=r"(guessing would give 5\.99|before the update).*train.lr"
    ):
        run.fit()


@pytest.mark.slow
def test_another_seed_is_another_run(new_trainer):
    first, other = new_trainer("a", seed=1), new_trainer("b", seed=2)
    first.fit()
    other.fit()
    assert not same_weights(first.train_step.model, other.train_step.model)


def test_a_finished_training_is_not_repeated(new_trainer, monkeypatch):
    monkeypatch.setenv("ATLAS_CHECKPOINT_SECONDS", "0")
    expected = new_trainer().fit()
    again = new_trainer()
    monkeypatch.setattr(again.train_step, "update", None)
    assert logs(again.fit()) == logs(expected)


@pytest.mark.parametrize(("seconds", "expected"), [("0", 40), ("4", 2), ("30", 1)])
def test_slow_checkpoints_are_written_less_often(new_trainer, monkeypatch, seconds, expected):
    """Each of 40 steps takes a second, and so does each checkpoint: then one in 20 seconds."""
    monkeypatch.setenv("ATLAS_CHECKPOINT_SECONDS", seconds)
    run = new_trainer(steps=40, warmup_share=0.1)
    clock, saves, update = [0.0], [], run.train_step.update

    def timed_update(*arguments):
        clock[0] += 1
        return update(*arguments)

    def timed_save(_step, state):
        clock[0] += 1
        saves.append(state.step)
        return True

    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(run.train_step, "update", timed_update)
    monkeypatch.setattr(run.checkpoints, "save", timed_save)
    run.fit()
    assert len(saves) == expected
    if seconds == "4":
        assert saves == [4, 24]


@pytest.mark.parametrize("value", ["often", "-5", "nan", "inf"])
def test_a_wrong_setting_is_named(new_trainer, monkeypatch, value):
    monkeypatch.setenv("ATLAS_CHECKPOINT_SECONDS", value)
    with pytest.raises(AtlasError, match=f"ATLAS_CHECKPOINT_SECONDS={value}"):
        new_trainer().fit()


def test_a_document_mask_keeps_documents_apart_in_training(new_trainer):
    """The gradient of a step is that of each document alone, in a batch of its own."""
    run = new_trainer(dropout=0.0)
    index = replace(run.splits["train"].index, document_mask=True)
    splits = {name: copy(split) for name, split in run.splits.items()}
    for split in splits.values():
        split.index = index
    run = replace(run, splits=splits)
    rows = torch.from_numpy(run.data.rows(0))
    batch = TokenBatch.from_rows(rows, index)
    run.train_step.backward(batch)
    gradients = {name: p.grad.clone() for name, p in run.model.named_parameters()}
    run.model.zero_grad()
    for inputs, targets in zip(batch.inputs, batch.targets, strict=True):
        starts = (inputs == index.eos).nonzero().flatten().tolist()
        for begin, end in pairwise([0, *(each for each in starts if each), len(inputs)]):
            loss = run.model(inputs[None, begin:end], targets=targets[None, begin:end])
            (loss / batch.num_targets()).backward()
    for name, parameter in run.model.named_parameters():
        assert torch.allclose(gradients[name], parameter.grad, rtol=0, atol=1e-6), name


def test_epochs_take_the_place_of_steps(new_trainer):
    run = new_trainer(epochs=2, batch_size=4, steps=1)
    windows = run.data.per_epoch
    assert run.train_step.steps == -(-2 * windows // 4)
    train = small_params(**{"train.epochs": 1}).train
    assert total_steps(train, 36) == 9


@pytest.fixture
def mixed_trainer(new_trainer, token_folder, tmp_path):
    """Create a trainer on the same tokens, with half the weight on the first documents."""
    index = TokenIndex.read(token_folder)
    train = index.splits["train"]
    ends = TokenSplit(token_folder, "train").document_ends
    sizes = {
        "a": CorpusSize(int(ends[29]), 30, 1),
        "b": CorpusSize(train.tokens - int(ends[29]), 50, 1),
    }
    folder = shutil.copytree(token_folder, tmp_path / "mixed")
    splits = index.splits | {"train": replace(train, corpora=sizes)}
    replace(index, splits=splits).write(folder)
    mix = [{"name": "files", "path": "x/a", "weight": 0.5}, {"name": "files", "path": "x/b"}]
    corpus = small_params(**{"corpus.name": "mix", "corpus.mix": mix}).corpus

    def make(name="run", **changes):
        trainer = new_trainer(name, **changes)
        trainer.params = trainer.params.model_copy(update={"corpus": corpus})
        trainer.splits = {split: TokenSplit(folder, split) for split in ("train", "val")}
        return trainer

    return make


def test_epochs_and_metrics_follow_the_mix(mixed_trainer):
    run = mixed_trainer(epochs=2, eval_every=1000)
    a, b = (run.data.sources[label].windows for label in "ab")
    assert run.train_step.steps == -(-(a + 2 * b) // 4)
    state = run.fit()
    seen = corpora_seen(run.data, state)
    assert (seen["weight.a"], seen["weight.b"]) == (0.5, 1)
    assert seen["tokens_seen.a"] + seen["tokens_seen.b"] == state.tokens
    assert abs(seen["tokens_seen.a"] - 32 * a) <= 3 * 32  # the last batch begins a third epoch
    assert abs(seen["tokens_seen.b"] - 32 * 2 * b) <= 3 * 32
    assert seen["share_seen.a"] == seen["tokens_seen.a"] / state.tokens
    assert state.train_rows[-1]["epoch"] == pytest.approx(2, abs=0.05)


def test_a_stopped_run_on_a_mix_resumes_exactly(mixed_trainer, new_trainer, monkeypatch):
    expected = mixed_trainer("whole").fit()
    first = mixed_trainer("stopped")
    stop_after(monkeypatch, first, 17)
    with pytest.raises(Stopped):
        first.fit()
    with pytest.raises(AtlasError, match=r"belongs to other batches \(mix differ\)"):
        new_trainer("stopped").fit()
    assert logs(mixed_trainer("stopped").fit()) == logs(expected)
    assert logs(new_trainer("plain").fit()) != logs(expected)


@pytest.mark.parametrize("positions", ["rope", "learned"])
def test_windows_can_be_shorter_than_the_context(new_trainer, positions):
    run = new_trainer(steps=2, options={"sequence_length": 10, "positions": positions})
    assert run.data.rows(0).shape == (4, 11)
    state = run.fit()
    assert state.tokens == 2 * 4 * 10
    targets = sum(batch.num_targets() for batch in run.val.spread(8))
    assert 70 < targets <= 80  # the last window may be shorter
    unused = run.train_step.optimizers.members[0].state
    if positions == "learned":
        assert not unused[run.model.positions.weight]["exp_avg"][10:].any()
