"""Optimizers against formulas in float64 and against torch's own."""

import numpy as np
import pytest
import torch
from torch import nn

from atlas.model.weights import make_model
from atlas.training.optimizers import Muon, make_optimizers, orthogonalize
from tests.small import GPT2_SHAPE, small_config, small_params

SHAPES = [(6, 6), (6, 6), (9, 4), (4, 9)]


def newton_schulz(gradient):
    """The author's iteration for one matrix in NumPy, transposed if tall."""
    x = gradient.T if gradient.shape[0] > gradient.shape[1] else gradient
    x = x / (np.linalg.norm(x) + 1e-7)
    for _ in range(5):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x.T if gradient.shape[0] > gradient.shape[1] else x


def muon_in_numpy(weights, gradients, lr, momentum, decay):
    means = [np.zeros_like(weight) for weight in weights]
    for step in gradients:
        for weight, mean, gradient in zip(weights, means, step, strict=True):
            mean *= momentum
            mean += (1 - momentum) * gradient
            direction = (1 - momentum) * gradient + momentum * mean
            scale = max(1, weight.shape[0] / weight.shape[1]) ** 0.5
            weight *= 1 - lr * decay
            weight -= lr * scale * newton_schulz(direction)


def test_muon_is_its_formula_in_float64():
    generator = np.random.default_rng(1)
    weights = [generator.normal(size=shape) for shape in SHAPES]
    gradients = [[generator.normal(size=shape) for shape in SHAPES] for _ in range(4)]
    matrices = [nn.Parameter(torch.tensor(weight)) for weight in weights]
    ours = Muon(matrices, lr=0.05, momentum=0.9, weight_decay=0.1, dtype=torch.float64)
    for step in gradients:
        for matrix, gradient in zip(matrices, step, strict=True):
            matrix.grad = torch.tensor(gradient)
        ours.step()
    muon_in_numpy(weights, gradients, 0.05, 0.9, 0.1)
    for matrix, weight in zip(matrices, weights, strict=True):
        assert np.abs(matrix.detach().numpy() - weight).max() < 1e-12


def test_muon_in_float32_is_close_to_it():
    generator = np.random.default_rng(2)
    for shape in SHAPES:
        gradient = generator.normal(size=shape)
        found = orthogonalize(torch.tensor(gradient, dtype=torch.float32)).numpy()
        assert np.abs(found - newton_schulz(gradient)).max() < 1e-4


def test_an_update_of_muon_is_nearly_orthogonal_and_keeps_the_singular_vectors():
    gradient = torch.randn(5, 20, 12, generator=torch.Generator().manual_seed(3)).double()
    found = orthogonalize(gradient, torch.float64)
    assert all(0.6 < value < 1.25 for value in torch.linalg.svdvals(found).flatten())
    left, _, right = torch.linalg.svd(gradient, full_matrices=False)
    turned = left.mT @ found @ right.mT
    assert (turned - turned.diagonal(dim1=-2, dim2=-1).diag_embed()).abs().max() < 1e-9


def test_muon_skips_weights_without_gradient_and_takes_no_closure():
    matrix = nn.Parameter(torch.ones(2, 3))
    ours = Muon([matrix], lr=0.1)
    ours.step()
    assert torch.equal(matrix, torch.ones(2, 3))
    with pytest.raises(ValueError, match="no closure"):
        ours.step(lambda: 0.0)


def kinds_of(model, optimizer):
    train = small_params(**{"train.optimizer": optimizer}).train
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        type(member).__name__: [
            ({names[id(p)] for p in group["params"]}, group["weight_decay"], group["initial_lr"])
            for group in member.param_groups
        ]
        for member in make_optimizers(model, train).members
    }


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "muon"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        GPT2_SHAPE | {"bias": True, "tied_head": False},
        {"kind": "two_layer", "window": 4},
        {"kind": "encoder_decoder", "separator": 3},
    ],
)
def test_every_weight_is_updated_by_one_group(optimizer, options):
    model = make_model(small_config(**options))
    found = kinds_of(model, optimizer)
    groups = [group for member in found.values() for group in member]
    assert sorted(name for names, *_ in groups for name in names) == sorted(
        name for name, _ in model.named_parameters()
    )
    for names, decay, _ in groups:
        dims = {model.get_parameter(name).dim() for name in names}
        assert dims == ({2} if decay else {1})


def test_muon_gets_the_matrices_of_hidden_layers():
    model = make_model(small_config(tied_head=False))
    found = kinds_of(model, "muon")
    ((hidden, decay, lr),) = found["Muon"]
    assert hidden == {n for n, p in model.named_parameters() if "blocks" in n and p.dim() == 2}
    assert (decay, lr) == (0.1, 0.02)
    (others, _, lr), _ = found["AdamW"]
    assert others == {"embedding.weight", "head.weight"}
    assert lr == 0.004


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_adamw_and_sgd_are_those_of_torch(optimizer):
    train = small_params(**{"train.optimizer": optimizer, "train.momentum": 0.9}).train
    ours, theirs = (make_model(small_config()) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    optimizers = make_optimizers(ours, train)
    groups = [
        {"params": [p for p in theirs.parameters() if p.dim() == 2], "weight_decay": 0.1},
        {"params": [p for p in theirs.parameters() if p.dim() == 1], "weight_decay": 0.0},
    ]
    if optimizer == "adamw":
        reference = torch.optim.AdamW(groups, lr=0.002, betas=(0.9, 0.95), foreach=False)
    else:
        reference = torch.optim.SGD(groups, lr=0.002, momentum=0.9, nesterov=True, foreach=False)
    optimizers.scale_lr(0.5)
    assert optimizers.lr == 0.002
    for _ in range(3):
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            b.grad = torch.randn_like(b)
            a.grad = b.grad.clone()
        optimizers.step()
        reference.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-7)
    optimizers.zero_grad()
    assert all(parameter.grad is None for parameter in ours.parameters())
