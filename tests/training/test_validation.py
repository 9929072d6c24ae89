"""Measurements during training."""

import math

import pytest
import torch

from atlas.model.loss import tally
from atlas.tokens.shards import TokenSplit
from atlas.tokens.windows import EvaluationWindows
from atlas.training.metrics import TrainState
from tests.small import EOS, small_config, write_tokens
from tests.training.runs import same_weights


def test_a_row_has_val_train_and_the_norm_of_the_weights(new_trainer):
    run = new_trainer(eval_train_windows=5)
    row = run.fit().val_rows[-1]
    windows = run.train_sample.spread(5)
    train = tally(run.train_step.model, windows)
    assert row["train_loss"] == pytest.approx(train.mean)
    assert row["train_accuracy"] == pytest.approx(train.accuracy)
    val = tally(run.train_step.model, run.val.spread(8))
    assert (row["loss"], row["accuracy"]) == pytest.approx((val.mean, val.accuracy))
    assert row["perplexity"] == pytest.approx(math.exp(val.mean))
    squares = sum(weight.square().sum().item() for weight in run.train_step.model.parameters())
    assert row["weight_norm"] == pytest.approx(math.sqrt(squares), rel=1e-5)


@pytest.mark.slow
def test_measuring_changes_nothing(new_trainer):
    one, other = new_trainer("one"), new_trainer("two", eval_train_windows=5, log_layers=3)
    assert one.fit().train_rows == other.fit().train_rows
    assert same_weights(one.train_step.model, other.train_step.model)
    assert math.isnan(one.fit().val_table()[0]["train_loss"])  # a column that DVC draws


class Fixed(torch.nn.Module):
    """Predict the same token everywhere."""

    def __init__(self, token):
        super().__init__()
        self.config = small_config(separator=9)
        self.device = torch.device("cpu")
        self.token = token

    def forward(self, ids):
        logits = torch.zeros(*ids.shape, 400)
        logits[..., self.token] = 1
        return logits

    def evaluating(self):
        return torch.no_grad()


def test_an_answer_is_right_if_all_of_it_is(tmp_path):
    documents = [[5, 9, 6, 6], [7, 9, 6, 8], [7, 9, 6], [9, EOS]]
    tokens = write_tokens(tmp_path, {"val": [documents]}, windows="padded", separator=9)
    windows = EvaluationWindows(TokenSplit(tokens, "val"), 8, 3)
    found = tally(Fixed(6), windows.all())
    assert (found.right, found.answers, found.tokens) == (2, 4, 6)
    assert found.accuracy == 0.5


def test_of_text_each_token_is_an_answer(tmp_path):
    tokens = write_tokens(tmp_path, {"val": [[[5, 6, 6, EOS]]]})
    model = Fixed(6)
    model.config = small_config()
    found = tally(model, EvaluationWindows(TokenSplit(tokens, "val"), 8, 3).all())
    assert (found.right, found.answers) == (2, 4)


def test_the_step_of_the_jump():
    rows = [
        {"step": step, "loss": 1.0, "accuracy": val, "train_accuracy": train, "weight_norm": 1.0}
        for step, train, val in ((0, 0.0, 0.0), (10, 0.99, 0.1), (20, 1.0, 0.94), (90, 1.0, 0.95))
    ]
    state = TrainState(step=90, val_rows=rows, train_rows=[{"step": 90, "loss": 0.1}])
    found = state.final_metrics()
    assert (found["learned_step"], found["generalised_step"]) == (10, 90)
    state.val_rows.pop()
    assert "generalised_step" not in state.final_metrics()


def test_norms_of_layers(new_trainer):
    run = new_trainer(log_layers=10, max_grad_norm=None, optimizer="sgd", momentum=0.0)
    rows = run.fit().layer_rows
    names = [name for name, _ in run.train_step.model.named_parameters()]
    assert [row["layer"] for row in rows] == names * 3
    assert [row["step"] for row in rows] == [step for step in (10, 20, 30) for _ in names]
    last = {row["layer"]: row for row in rows[-len(names) :]}
    for name, weight in run.train_step.model.named_parameters():
        assert last[name]["update"] > 0
        assert last[name]["gradient"] > 0
        change = last[name]["update"]
        assert last[name]["weights"] == pytest.approx(weight.norm().item(), abs=change * 1.01)


def test_the_update_of_plain_sgd_is_the_gradient_times_the_rate(new_trainer):
    changes = {"weight_decay": 0.0, "momentum": 0.0, "max_grad_norm": None, "schedule": "constant"}
    run = new_trainer(log_layers=30, optimizer="sgd", warmup_share=0.0, **changes)
    for row in run.fit().layer_rows:
        assert row["update"] == pytest.approx(0.01 * row["gradient"], rel=1e-2, abs=1e-6)
