import math

import numpy as np
import pytest

from atlas.reference.decoder import initialise, parameter_shapes
from tests.reference.gradients import small_options


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"positions": "absolute"}, "positions is 'absolute': it is one of learned, sinusoidal"),
        ({"norm": "batch"}, "norm is 'batch'"),
        ({"norm_position": "between"}, "norm_position is 'between'"),
        ({"feed_forward": "tanh"}, "feed_forward is 'tanh'"),
        ({"qk_norm": "yes"}, "qk_norm is 'yes'"),
        ({"n_layer": 0}, "n_layer is 0: it is 1 or more"),
        ({"norm_eps": 0.0}, "norm_eps is 0.0: it is more than 0"),
        ({"rope_scaling": -1.0}, "rope_scaling is -1.0: it is more than 0"),
        ({"rope_theta": math.nan}, "rope_theta is nan"),
        ({"window": 0}, "window is 0"),
        ({"n_head": 3, "n_kv_head": 1}, "d_model 8 is not divisible by n_head 3"),
        ({"n_kv_head": 3}, "n_head 4 is not divisible by n_kv_head 3"),
        ({"n_head": 8}, "d_model / n_head is 1: it must be even"),
    ],
)
def test_invalid_options_are_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        small_options(**changes)


def test_an_odd_head_is_fine_without_rope():
    assert small_options(n_head=8, positions="alibi").head_size == 1


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


def test_options_remove_weights():
    post = parameter_shapes(small_options(norm_position="post", qk_norm="head", bias=True))
    assert not {"norm.weight", "head.weight", "positions.weight"} & post.keys()
    assert "blocks.0.attention_norm.bias" not in post  # RMSNorm has none
    assert post["blocks.1.attention.key_norm.weight"] == (2,)
    assert "blocks.0.feed_forward.gate.weight" not in parameter_shapes(
        small_options(feed_forward="relu")
    )


def test_initial_weights_depend_on_the_seed_and_have_the_documented_sizes():
    options = small_options(
        d_model=128, d_ff=512, n_layer=4, norm="layernorm", bias=True, vocab_size=400
    )
    weights, again, other = (initialise(options, seed) for seed in (0, 0, 1))
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
