"""The PyTorch decoder and the NumPy decoder, each checked against the other.

    python -m tests.model.test_against_reference

rewrites the golden trajectory with the NumPy decoder.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas.model.weights import load_weights
from atlas.params.schema import TrainParams
from atlas.reference.decoder import attention_weights, decoder_forward, initialize
from atlas.reference.options import Options
from atlas.reference.training import AdamW, Batch, loss_and_gradients, train, warmup_cosine
from atlas.tokens.windows import TokenBatch as TensorBatch
from atlas.training.distributed import DistributedContext
from atlas.training.train_step import TrainStep
from tests.model.family import OPTIONS, T, V, config_of, decoder, ids_of
from tests.small import small_params

GOLDEN = Path(__file__).parent / "trajectory.json"
STEPS, WARMUP, LR, CLIP = 20, 3, 3e-3, 1.0
TRAIN = {
    "batch_size": 4,
    "warmup_share": WARMUP / STEPS,
    "lr": LR,
    "beta1": 0.9,
    "beta2": 0.95,
    "weight_decay": 0.1,
    "max_grad_norm": CLIP,
}
SHAPES = {
    "llama": {"tied_head": False},
    "qwen3": {"qk_norm": "head"},
    "gpt2": {"positions": "learned", "norm": "layernorm", "feed_forward": "gelu", "bias": True},
    "original": {"positions": "sinusoidal", "norm": "layernorm", "norm_position": "post"}
    | {"feed_forward": "relu", "bias": True},
    "olmo2": {"norm_position": "reordered", "qk_norm": "all"},
    "alibi": {"positions": "alibi", "feed_forward": "relu2", "window": 5},
    "smollm3": {"no_rope_every": 2, "d_head": 8, "rope_scaling": 4.0}
    | {"rope_scaling_kind": "yarn", "rope_scaling_context": 8},
    "stablelm": {"norm": "layernorm", "bias": "qkv_norm", "rotary_share": 1 / 3},
}
examples = settings(max_examples=60, deadline=None, derandomize=True)


def reference_options(config):
    """Return the options of the NumPy decoder for a config."""
    return Options(**{name: getattr(config, name) for name in Options.__dataclass_fields__})


@pytest.fixture(autouse=True)
def in_float64():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def pair(options):
    """Return both decoders with the same weights."""
    model = decoder(**options)
    weights = {
        name: weight.detach().numpy().copy()
        for name, weight in model.state_dict().items()
        if name != "head.weight" or not model.config.tied_head
    }
    return model, weights, reference_options(model.config)


def masks(rows, side, generator):
    """Return a mask (rows, T): all tokens, or padding at one side."""
    lengths = generator.integers(2, T + 1, (rows, 1))
    places = np.arange(T)[None]
    return {"none": None, "right": places < lengths, "left": places >= T - lengths}[side]


@examples
@given(OPTIONS, st.sampled_from(["none", "left", "right"]), st.integers(0, 2**32 - 1))
def test_logits_attention_and_every_gradient_are_equal(options, side, seed):
    model, weights, same_options = pair(options)
    generator = np.random.default_rng(seed)
    ids = generator.integers(0, V, (3, T))
    mask = masks(3, side, generator)
    targets = np.where(mask if mask is not None else True, generator.integers(0, V, (3, T)), -100)

    ours: list[torch.Tensor] = []
    torch_mask = None if mask is None else torch.from_numpy(mask)
    logits = model(torch.from_numpy(ids), torch_mask, weights=ours)
    expected, cache = decoder_forward(weights, same_options, ids, mask)
    assert np.abs(logits.detach().numpy() - expected).max() < 1e-9
    for our, their in zip(ours, attention_weights(cache), strict=True):
        assert np.abs(our.detach().numpy() - their).max() < 1e-12

    loss = F.cross_entropy(logits.flatten(0, 1), torch.from_numpy(targets).flatten())
    loss.backward()
    found, gradients = loss_and_gradients(weights, same_options, Batch(ids, targets, mask))
    assert loss.item() == pytest.approx(found, abs=1e-12)
    named = {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}
    assert set(named) == set(gradients)
    largest = max(np.abs(gradient).max() for gradient in named.values())
    for name, gradient in named.items():
        assert np.abs(gradient - gradients[name]).max() < 1e-10 * largest, name


def trajectory(options):
    """Return the losses of the NumPy decoder over the steps, from its own initial weights."""
    same_options = reference_options(config_of(**options))
    weights = initialize(same_options, seed=1, dtype=np.float64)
    optimizer = AdamW(TRAIN["beta1"], TRAIN["beta2"], weight_decay=TRAIN["weight_decay"])
    losses = train(weights, same_options, batch_of_step, optimizer, lr_of_step, STEPS, CLIP)
    return list(losses)


def lr_of_step(step):
    return LR * warmup_cosine(step, STEPS, WARMUP, 0.1)


def batch_of_step(step):
    ids = ids_of(4, T + 1, seed=step % 3).numpy()
    return Batch(ids[:, :-1], ids[:, 1:])


@pytest.mark.parametrize("name", SHAPES)
def test_numpy_keeps_to_the_golden_trajectory(name):
    golden = json.loads(GOLDEN.read_text())[name]
    assert golden[-1] < golden[0] - 0.3  # it learns
    assert trajectory(SHAPES[name]) == pytest.approx(golden, abs=1e-9)


@pytest.mark.parametrize("name", SHAPES)
def test_pytorch_keeps_to_the_golden_trajectory(name):
    golden = json.loads(GOLDEN.read_text())[name]
    model = decoder(**SHAPES[name]).train()
    first = initialize(reference_options(model.config), seed=1, dtype=np.float64)
    load_weights(model, {key: torch.from_numpy(value) for key, value in first.items()})
    train = TrainParams(**(small_params().train.model_dump() | TRAIN))
    train_step = TrainStep(model, train, STEPS, DistributedContext(torch.device("cpu")))
    for step, expected in enumerate(golden):
        ids, targets = (torch.from_numpy(each) for each in batch_of_step(step)[:2])
        batch = TensorBatch(ids, targets, torch.ones_like(ids, dtype=torch.bool))
        assert train_step.update(batch, step).loss == pytest.approx(expected, abs=1e-8), step


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps({name: trajectory(SHAPES[name]) for name in SHAPES}, indent=1))
