import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from atlas.model.decoder import Decoder
from atlas.model.initialise import initialise
from atlas.tokens.windows import Batch
from atlas.training.optimizer import make_optimizer
from atlas.training.schedule import warmup_cosine
from atlas.training.utilisation import matmul_flops
from atlas.training.validation import cross_entropy_sum, mean_loss, total_loss
from tests.small import GPT2_SHAPE, small_config, small_params


@pytest.mark.parametrize(
    ("steps", "warmup", "final", "factors"),
    [
        (6, 2, 0.0, [0.5, 1.0, 0.853553, 0.5, 0.146447, 0.0]),
        (4, 0, 0.5, [0.926777, 0.75, 0.573223, 0.5]),
        (3, 3, 0.1, [1 / 3, 2 / 3, 1.0]),
        (1, 1, 0.1, [1.0]),
    ],
)
def test_the_schedule_written_out(steps, warmup, final, factors):
    found = [warmup_cosine(step, steps, warmup, final) for step in range(steps)]
    assert found == pytest.approx(factors, abs=1e-6)


def test_matrices_decay_and_vectors_do_not():
    model = Decoder(small_config(**GPT2_SHAPE, bias=True))
    optimizer = make_optimizer(model, small_params().train)
    decaying, constant = (group["params"] for group in optimizer.param_groups)
    assert {p.dim() for p in decaying} == {2}
    assert {p.dim() for p in constant} == {1}
    assert len(decaying) + len(constant) == len(list(model.parameters()))
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]


def test_padding_does_not_count():
    logits = torch.randn(2, 3, 5)
    targets = torch.tensor([[1, 2, -100], [4, -100, -100]])
    by_hand = sum(-logits[b, t].log_softmax(0)[targets[b, t]] for b, t in [(0, 0), (0, 1), (1, 0)])
    assert cross_entropy_sum(logits, targets) == pytest.approx(by_hand.item(), rel=1e-6)


def test_losses_weigh_tokens_not_batches():
    model = Decoder(small_config())
    initialise(model, 0)
    inputs, targets = (torch.randint(0, 400, (3, 8)).numpy() for _ in range(2))
    long = Batch(inputs, targets, np.ones((3, 8), bool))
    short = Batch(*(part[:1, :2] for part in long))
    total, tokens = total_loss(model, [long, short])
    assert tokens == 26
    parts = [total_loss(model, [batch])[0] for batch in (long, short)]
    assert total == pytest.approx(sum(parts), rel=1e-6)
    expected = F.cross_entropy(
        model(torch.tensor(long[0])).flatten(0, 1), torch.tensor(long[1]).flatten()
    )
    assert mean_loss(model, [long]) == pytest.approx(expected.item(), rel=1e-5)


def test_validation_leaves_the_model_and_the_random_numbers_as_they_were():
    model = Decoder(small_config(dropout=0.5)).train()
    before = torch.get_rng_state()
    zeros = np.zeros((1, 4), np.int64)
    batch = Batch(zeros, zeros, np.ones((1, 4), bool))
    assert mean_loss(model, [batch]) == mean_loss(model, [batch])
    assert model.training
    assert torch.equal(before, torch.get_rng_state())


def test_the_machine_multiplies():
    assert 1e8 < matmul_flops(torch.device("cpu")) < 1e15
    assert math.isfinite(matmul_flops(torch.device("cpu")))
