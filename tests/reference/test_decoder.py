"""The decoder: gradients, masks, padding, options, weights and generation."""

import ast
import math
import sys
from dataclasses import replace

import numpy as np
import pytest

from atlas.reference.decoder import (
    attention_weights,
    decoder_backward,
    decoder_forward,
    generate,
    initialize,
    parameter_shapes,
)
from atlas.reference.training import Batch, loss_and_gradients
from tests.code_walk import ROOT
from tests.reference.gradients import central_difference, relative_error, small_options

# Every value of every option is in one of them.
SHAPES = [
    {},
    {"qk_norm": "head", "tied_head": False, "feed_forward": "relu2", "window": 2},
    {"qk_norm": "all", "norm_position": "reordered", "bias": True, "rope_scaling": 2.0},
    {"positions": "learned", "norm": "layernorm", "bias": True, "feed_forward": "gelu"},
    {"positions": "sinusoidal", "norm_position": "post", "feed_forward": "relu", "n_kv_head": 4},
    {"positions": "alibi", "feed_forward": "geglu", "n_kv_head": 1, "tied_head": False},
    {"d_head": 4, "bias": "qkv", "no_rope_every": 2},
    {"d_head": 8, "rotary_share": 0.25, "norm": "layernorm", "bias": "norm", "qk_norm": "head"},
    {"bias": "qkv_norm", "norm": "layernorm", "qk_norm": "all", "d_head": 6}
    | {"rope_scaling": 4.0, "rope_scaling_kind": "llama3", "rope_scaling_context": 3},
    {"d_head": 4, "rope_scaling": 2.0, "rope_scaling_kind": "yarn", "rope_scaling_context": 5},
    {"positions": "none", "feed_forward": "silu", "norm": "layernorm", "norm_position": "post"},
]
IDS = np.array([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])
TARGETS = np.array([[-100, 4, 1, 5, 9], [2, 6, -100, 3, 5]])
MASK = np.array([[False, True, True, True, True], [True, True, True, False, True]])


def random_decoder(changes, dtype=np.float64):
    """A decoder with random values in all weights, biases and norms too."""
    options = small_options(**changes)
    generator = np.random.default_rng(5)
    parameters = initialize(options, 3, dtype)
    for array in parameters.values():
        array += generator.normal(0, 0.3, array.shape).astype(dtype)
    return parameters, options


@pytest.mark.parametrize("mask", [None, MASK], ids=["full", "padded"])
@pytest.mark.parametrize("changes", SHAPES)
def test_gradients_of_the_loss_equal_central_differences(changes, mask):
    parameters, options = random_decoder(changes)
    batch = Batch(IDS, TARGETS, mask)
    _, gradients = loss_and_gradients(parameters, options, batch)
    generator = np.random.default_rng(1)
    for name, array in parameters.items():
        # Check the largest gradient of each weight, where errors show, and a random one.
        largest = np.unravel_index(np.abs(gradients[name]).argmax(), array.shape)
        for index in (largest, tuple(generator.integers(array.shape))):
            slope = central_difference(
                lambda: loss_and_gradients(parameters, options, batch)[0], array, index
            )
            error = relative_error(gradients[name][index], slope, min_scale=1e-2)
            assert error < 1e-6, (name, index)


@pytest.mark.parametrize("changes", SHAPES)
def test_gradients_have_the_names_shapes_and_dtype_of_the_weights(changes):
    parameters, options = random_decoder(changes, np.float32)
    logits, cache = decoder_forward(parameters, options, IDS, MASK)
    assert logits.shape == (2, 5, 11)
    assert logits.dtype == np.float32
    assert set(float_types(cache)) == {np.dtype(np.float32)}
    gradients = decoder_backward(np.ones_like(logits), cache)
    assert {name: array.shape for name, array in gradients.items()} == parameter_shapes(options)
    assert {array.dtype for array in gradients.values()} == {np.dtype(np.float32)}


def float_types(cache):
    """Yield the dtype of every float array in a cache."""
    if isinstance(cache, dict | tuple | list):
        for each in cache.values() if isinstance(cache, dict) else cache:
            yield from float_types(each)
    elif isinstance(cache, np.ndarray) and cache.dtype.kind == "f":
        yield cache.dtype


@pytest.mark.parametrize("changes", SHAPES)
def test_a_later_token_changes_no_earlier_logit(changes):
    parameters, options = random_decoder(changes)
    changed = IDS.copy()
    changed[:, 3:] = 7
    before, after = (decoder_forward(parameters, options, ids)[0] for ids in (IDS, changed))
    assert np.allclose(before[:, :3], after[:, :3], rtol=0, atol=1e-12)
    assert not np.allclose(before[:, 3:], after[:, 3:])


@pytest.mark.parametrize("changes", SHAPES)
@pytest.mark.parametrize("sides", [(3, 0), (0, 3), (1, 2)])
def test_padding_does_not_change_the_logits_of_tokens(changes, sides):
    parameters, options = random_decoder(changes)
    expected, _ = decoder_forward(parameters, options, IDS)
    padded = np.pad(IDS, ((0, 0), sides), constant_values=8)
    mask = np.pad(np.ones(IDS.shape, bool), ((0, 0), sides))
    logits, _ = decoder_forward(parameters, options, padded, mask)
    assert np.allclose(logits[:, sides[0] : sides[0] + 5], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("changes", SHAPES)
def test_attention_weights_sum_to_1_and_are_0_at_masked_keys(changes):
    parameters, options = random_decoder(changes)
    _, cache = decoder_forward(parameters, options, IDS, MASK)
    weights = attention_weights(cache)
    assert [each.shape for each in weights] == [(2, 4, 5, 5)] * 2
    for each in weights:
        assert np.allclose(each.sum(-1), 1, rtol=0, atol=1e-12)
        assert (each[..., ~np.tri(5, dtype=bool)] == 0).all()
        assert (each[0, :, 1:, 0] == 0).all()
        assert (each[1, :, 4, 3] == 0).all()


def test_a_window_hides_earlier_tokens():
    parameters, options = random_decoder({"n_layer": 1, "window": 2})
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
        {"rope_scaling": 2.0, "rope_scaling_kind": "llama3", "rope_scaling_context": 3},
        {"rope_scaling": 2.0, "rope_scaling_kind": "yarn", "rope_scaling_context": 30},
        {"rotary_share": 0.5},
        {"no_rope_every": 2},
        {"norm_eps": 0.1},
        {"window": 2},
        {"feed_forward": "geglu"},
        {"norm_position": "reordered"},
        {"positions": "none"},
    ],
)
def test_every_option_changes_the_logits(change):
    parameters, options = random_decoder({"n_head": 2})
    expected, _ = decoder_forward(parameters, options, IDS)
    logits, _ = decoder_forward(parameters, replace(options, **change), IDS)
    assert not np.allclose(logits, expected)


def test_the_gradient_of_a_tied_head_is_the_sum_of_both_uses():
    tied, options = random_decoder({})
    untied = tied | {"head.weight": tied["embedding.weight"]}
    batch = Batch(IDS, TARGETS)
    loss, gradients = loss_and_gradients(tied, options, batch)
    same_loss, apart = loss_and_gradients(untied, small_options(tied_head=False), batch)
    assert loss == same_loss
    both = apart["embedding.weight"] + apart["head.weight"]
    assert np.allclose(gradients["embedding.weight"], both, rtol=0, atol=1e-15)


def test_grouped_heads_equal_heads_with_repeated_keys_and_values():
    grouped, options = random_decoder({"n_kv_head": 2})
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
        (np.zeros((1, 9), int), None, "9 tokens are more than context_length 8"),
        (np.array([[0, 11]]), None, "id 11 is outside 0 to 10"),
        (np.array([[-1, 3]]), None, "id -1 is outside 0 to 10"),
        (IDS, MASK[:, 1:], r"mask has the shape \(2, 4\), but ids have \(2, 5\)"),
        (IDS, MASK.astype(int), "mask has dtype int64; it must be bool"),
        (IDS, MASK & [[True], [False]], "row 1 of mask is all False"),
    ],
)
def test_invalid_ids_and_masks_are_refused(ids, mask, message):
    parameters, options = random_decoder({})
    with pytest.raises(ValueError, match=message):
        decoder_forward(parameters, options, ids, mask)


def test_the_reference_imports_only_numpy_and_the_standard_library():
    for file in (ROOT / "src/atlas/reference").glob("*.py"):
        nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
        modules = [each.module for each in nodes if isinstance(each, ast.ImportFrom)]
        modules += [
            each.name for node in nodes if isinstance(node, ast.Import) for each in node.names
        ]
        others = [name for name in modules if not name.startswith("atlas.reference.")]
        packages = {name.split(".")[0] for name in others}
        assert packages <= {"numpy", *sys.stdlib_module_names}, file


def test_weights_have_the_names_and_shapes_of_pytorch():
    options = small_options(
        n_layer=1, positions="learned", norm="layernorm", qk_norm="all", bias=True, tied_head=False
    )
    assert parameter_shapes(options) == {
        "embedding.weight": (11, 8),
        "positions.weight": (8, 8),
        "blocks.0.attention_norm.weight": (8,),
        "blocks.0.attention_norm.bias": (8,),
        "blocks.0.attention.query.weight": (8, 8),
        "blocks.0.attention.query.bias": (8,),
        "blocks.0.attention.key.weight": (4, 8),
        "blocks.0.attention.key.bias": (4,),
        "blocks.0.attention.value.weight": (4, 8),
        "blocks.0.attention.value.bias": (4,),
        "blocks.0.attention.output.weight": (8, 8),
        "blocks.0.attention.output.bias": (8,),
        "blocks.0.attention.query_norm.weight": (8,),
        "blocks.0.attention.key_norm.weight": (4,),
        "blocks.0.feed_forward_norm.weight": (8,),
        "blocks.0.feed_forward_norm.bias": (8,),
        "blocks.0.feed_forward.gate.weight": (6, 8),
        "blocks.0.feed_forward.gate.bias": (6,),
        "blocks.0.feed_forward.up.weight": (6, 8),
        "blocks.0.feed_forward.up.bias": (6,),
        "blocks.0.feed_forward.down.weight": (8, 6),
        "blocks.0.feed_forward.down.bias": (8,),
        "norm.weight": (8,),
        "norm.bias": (8,),
        "head.weight": (11, 8),
    }


def test_options_leave_out_weights():
    post = parameter_shapes(small_options(norm_position="post", qk_norm="head", bias=True))
    assert not {"norm.weight", "head.weight", "positions.weight"} & post.keys()
    assert "blocks.0.attention_norm.bias" not in post  # RMSNorm has no bias
    assert post["blocks.1.attention.key_norm.weight"] == (2,)
    assert "blocks.0.feed_forward.gate.weight" not in parameter_shapes(
        small_options(feed_forward="relu")
    )


def test_biases_of_some_layers_and_wide_heads():
    def biased(**options):
        shapes = parameter_shapes(small_options(n_layer=1, norm="layernorm", **options))
        return {name.split(".")[-2] for name in shapes if name.endswith(".bias")}

    norms = {"attention_norm", "feed_forward_norm", "norm"}
    assert biased(bias="qkv") == {"query", "key", "value"}
    assert biased(bias="norm") == norms
    assert biased(bias="qkv_norm") == {"query", "key", "value"} | norms
    shapes = parameter_shapes(small_options(d_head=5, positions="none"))
    assert shapes["blocks.0.attention.query.weight"] == (20, 8)
    assert shapes["blocks.0.attention.key.weight"] == (10, 8)
    assert shapes["blocks.0.attention.output.weight"] == (8, 20)


def test_initial_weights_depend_on_the_seed_and_have_the_documented_sizes():
    options = small_options(
        d_model=128, d_ff=512, n_layer=4, norm="layernorm", bias=True, vocab_size=400
    )
    weights, again, other = (initialize(options, seed) for seed in (0, 0, 1))
    for name, weight in weights.items():
        assert np.array_equal(weight, again[name]), name
    assert not np.array_equal(weights["embedding.weight"], other["embedding.weight"])
    assert {array.dtype for array in weights.values()} == {np.dtype(np.float32)}
    inner = weights["blocks.1.feed_forward.up.weight"].std()
    assert inner == pytest.approx(math.sqrt(2 / (5 * 128)), rel=0.05)
    for name in ("feed_forward.down", "attention.output"):
        outer = weights[f"blocks.1.{name}.weight"].std()
        assert outer == pytest.approx(inner / math.sqrt(8), rel=0.05)
    assert (weights["blocks.0.attention.query.bias"] == 0).all()
    assert (weights["norm.weight"] == 1).all()


def test_a_padded_prompt_continues_as_it_would_alone():
    options = small_options(context_length=16, tied_head=False)
    parameters = initialize(options, 0, np.float64)
    for array in parameters.values():
        array *= 3  # so that the next token depends on all tokens before
    prompts = np.array([[0, 0, 0, 1, 2], [5, 2, 3, 1, 1]])
    mask = np.array([[False, False, False, True, True], [True] * 5])
    together = generate(parameters, options, prompts, 11, mask)
    assert together[:1].tolist() == generate(parameters, options, prompts[:1, 3:], 11).tolist()
    assert together[1:].tolist() == generate(parameters, options, prompts[1:], 11).tolist()
    assert len(set(together.flat)) > 4


def test_generation_beyond_the_context_is_refused():
    options = small_options()
    with pytest.raises(ValueError, match="9 tokens are more than context_length 8"):
        generate(initialize(options, 0), options, IDS, 5)
