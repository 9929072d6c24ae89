from dataclasses import replace

import numpy as np
import pytest

from atlas.reference.decoder import (
    attention_weights,
    decoder_backward,
    decoder_forward,
    initialise,
    parameter_shapes,
)
from atlas.reference.training import Batch, loss_and_gradients
from tests.code_walk import ROOT, imported_names
from tests.reference.gradients import central_difference, relative_error, small_options

# Every value of every option stands in one of them.
SHAPES = [
    {},
    {"qk_norm": "head", "tied_head": False, "feed_forward": "relu2", "window": 2},
    {"qk_norm": "all", "norm_position": "reordered", "bias": True, "rope_scaling": 2.0},
    {"positions": "learned", "norm": "layernorm", "bias": True, "feed_forward": "gelu"},
    {"positions": "sinusoidal", "norm_position": "post", "feed_forward": "relu", "n_kv_head": 4},
    {"positions": "alibi", "feed_forward": "geglu", "n_kv_head": 1, "tied_head": False},
    {"positions": "none", "feed_forward": "silu", "norm": "layernorm", "norm_position": "post"},
]
IDS = np.array([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])
TARGETS = np.array([[-100, 4, 1, 5, 9], [2, 6, -100, 3, 5]])
MASK = np.array([[False, True, True, True, True], [True, True, True, False, True]])


def make(changes, dtype=np.float64):
    """Return a decoder with all weights moved from their initial values, biases and norms too."""
    options = small_options(**changes)
    generator = np.random.default_rng(5)
    parameters = initialise(options, 3, dtype)
    for array in parameters.values():
        array += generator.normal(0, 0.3, array.shape).astype(dtype)
    return parameters, options


@pytest.mark.parametrize("mask", [None, MASK], ids=["full", "padded"])
@pytest.mark.parametrize("changes", SHAPES)
def test_the_gradient_of_the_loss_equals_central_differences(changes, mask):
    parameters, options = make(changes)
    batch = Batch(IDS, TARGETS, mask)
    _, gradients = loss_and_gradients(parameters, options, batch)
    generator = np.random.default_rng(1)
    for name, array in parameters.items():
        # The largest slope of each weight, where an error shows, and a random one.
        largest = np.unravel_index(np.abs(gradients[name]).argmax(), array.shape)
        for place in (largest, tuple(generator.integers(array.shape))):
            slope = central_difference(
                lambda: loss_and_gradients(parameters, options, batch)[0], array, place
            )
            error = relative_error(gradients[name][place], slope, least=1e-2)
            assert error < 1e-6, (name, place)


@pytest.mark.parametrize("changes", SHAPES)
def test_gradients_have_the_names_shapes_and_type_of_the_weights(changes):
    parameters, options = make(changes, np.float32)
    logits, cache = decoder_forward(parameters, options, IDS, MASK)
    assert logits.shape == (2, 5, 11)
    assert logits.dtype == np.float32
    assert set(float_types(cache)) == {np.dtype(np.float32)}
    gradients = decoder_backward(np.ones_like(logits), cache)
    assert {name: array.shape for name, array in gradients.items()} == parameter_shapes(options)
    assert {array.dtype for array in gradients.values()} == {np.dtype(np.float32)}


def float_types(cache):
    """Return the dtype of every float array in a cache."""
    if isinstance(cache, dict | tuple | list):
        for each in cache.values() if isinstance(cache, dict) else cache:
            yield from float_types(each)
    elif isinstance(cache, np.ndarray) and cache.dtype.kind == "f":
        yield cache.dtype


@pytest.mark.parametrize("changes", SHAPES)
def test_a_later_token_changes_no_earlier_logit(changes):
    parameters, options = make(changes)
    changed = IDS.copy()
    changed[:, 3:] = 7
    before, after = (decoder_forward(parameters, options, ids)[0] for ids in (IDS, changed))
    assert np.allclose(before[:, :3], after[:, :3], rtol=0, atol=1e-12)
    assert not np.allclose(before[:, 3:], after[:, 3:])


@pytest.mark.parametrize("changes", SHAPES)
@pytest.mark.parametrize("sides", [(3, 0), (0, 3), (1, 2)])
def test_padding_changes_no_token(changes, sides):
    parameters, options = make(changes)
    expected, _ = decoder_forward(parameters, options, IDS)
    padded = np.pad(IDS, ((0, 0), sides), constant_values=8)
    mask = np.pad(np.ones(IDS.shape, bool), ((0, 0), sides))
    logits, _ = decoder_forward(parameters, options, padded, mask)
    assert np.allclose(logits[:, sides[0] : sides[0] + 5], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("changes", SHAPES)
def test_attention_sums_to_one_and_is_zero_on_hidden_tokens(changes):
    parameters, options = make(changes)
    _, cache = decoder_forward(parameters, options, IDS, MASK)
    weights = attention_weights(cache)
    assert [each.shape for each in weights] == [(2, 4, 5, 5)] * 2
    for each in weights:
        assert np.allclose(each.sum(-1), 1, rtol=0, atol=1e-12)
        assert (each[..., ~np.tri(5, dtype=bool)] == 0).all()
        assert (each[0, :, 1:, 0] == 0).all()
        assert (each[1, :, 4, 3] == 0).all()


def test_a_window_hides_distant_tokens():
    parameters, options = make({"n_layer": 1, "window": 2})
    changed = IDS.copy()
    changed[:, 0] = 7
    before, after = (decoder_forward(parameters, options, ids)[0] for ids in (IDS, changed))
    assert not np.allclose(before[:, 1], after[:, 1])
    assert np.allclose(before[:, 2:], after[:, 2:], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "change",
    [
        {"rope_theta": 10.0},
        {"rope_scaling": 2.0},
        {"norm_eps": 0.1},
        {"window": 2},
        {"feed_forward": "geglu"},
        {"norm_position": "reordered"},
        {"positions": "none"},
    ],
)
def test_an_option_reaches_the_logits(change):
    parameters, options = make({"n_head": 2})
    expected, _ = decoder_forward(parameters, options, IDS)
    logits, _ = decoder_forward(parameters, replace(options, **change), IDS)
    assert not np.allclose(logits, expected)


def test_the_gradient_of_a_tied_head_is_the_sum_of_both_uses():
    tied, options = make({})
    untied = tied | {"head.weight": tied["embedding.weight"]}
    batch = Batch(IDS, TARGETS)
    loss, gradients = loss_and_gradients(tied, options, batch)
    same_loss, apart = loss_and_gradients(untied, small_options(tied_head=False), batch)
    assert loss == same_loss
    both = apart["embedding.weight"] + apart["head.weight"]
    assert np.allclose(gradients["embedding.weight"], both, rtol=0, atol=1e-15)


def test_grouped_heads_are_heads_with_the_same_keys_and_values():
    grouped, options = make({"n_kv_head": 2})
    single = dict(grouped)
    for name in grouped:
        if name.endswith(("key.weight", "value.weight")):
            heads = grouped[name].reshape(2, 2, 8)  # two heads of two channels
            single[name] = heads.repeat(2, axis=0).reshape(8, 8)
    expected, _ = decoder_forward(single, small_options(n_kv_head=4), IDS)
    logits, _ = decoder_forward(grouped, options, IDS)
    assert np.allclose(logits, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("ids", "mask", "message"),
    [
        (np.zeros((0, 3), int), None, r"ids have the shape \(0, 3\)"),
        (np.zeros((2, 0), int), None, r"ids have the shape \(2, 0\)"),
        (np.zeros(3, int), None, r"ids have the shape \(3,\)"),
        (np.zeros((1, 9), int), None, "9 tokens, the context holds 8"),
        (np.array([[0, 11]]), None, "id 11: ids go from 0 to 10"),
        (np.array([[-1, 3]]), None, "id -1: ids go from 0 to 10"),
        (IDS, MASK[:, 1:], r"the mask has the shape \(2, 4\), ids have \(2, 5\)"),
        (IDS, MASK.astype(int), "the mask is of int64: give booleans"),
        (IDS, MASK & [[True], [False]], "row 1 of the mask is all False"),
    ],
)
def test_invalid_ids_and_masks_are_refused(ids, mask, message):
    parameters, options = make({})
    with pytest.raises(ValueError, match=message):
        decoder_forward(parameters, options, ids, mask)


def test_the_reference_imports_only_numpy_and_the_standard_library():
    for file in (ROOT / "src/atlas/reference").glob("*.py"):
        roots = {name for name in imported_names(file) if name.startswith(("atlas.", "torch"))}
        assert all(name.startswith("atlas.reference") for name in roots), file
