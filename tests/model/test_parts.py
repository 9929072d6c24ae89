"""Each layer of the model against its equation."""

import math

import pytest
import torch
import torch.nn.functional as F

from atlas.model.attention import Attention, AttentionMetadata
from atlas.model.layers import FeedForward, make_norm
from atlas.model.masks import (
    AttentionMask,
    RotaryPositions,
    alibi_slopes,
    rotate,
    sinusoidal_table,
    token_positions,
)
from atlas.model.transformer import Block
from tests.small import small_config

CAUSAL = AttentionMetadata(causal=True)


def turned(rotary, x):
    """Rotate heads (B, T, H, D) at positions 0, 1, ..."""
    return rotate(x, *rotary.at(torch.arange(x.shape[1])))


@pytest.mark.parametrize("scaling", [1.0, 4.0])
def test_rope_is_a_rotation_in_the_complex_plane(scaling):
    shape = {"d_head": 8, "context_length": 16}
    rotary = RotaryPositions(small_config(**shape, rope_theta=100.0, rope_scaling=scaling))
    x = torch.randn(2, 16, 3, 8)
    points = torch.complex(x[..., :4], x[..., 4:])
    angles = torch.arange(16)[:, None, None] / scaling * 100.0 ** (-torch.arange(4) / 4)
    expected = points * torch.polar(torch.ones_like(angles), angles)
    assert torch.allclose(turned(rotary, x)[..., :4], expected.real, atol=1e-5)
    assert torch.allclose(turned(rotary, x)[..., 4:], expected.imag, atol=1e-5)


def test_rope_depends_only_on_distances():
    rotary = RotaryPositions(small_config(d_head=8, context_length=32))
    query, key = torch.randn(8), torch.randn(8)
    turned_queries = turned(rotary, query.expand(1, 32, 1, 8))[0, :, 0]
    turned_keys = turned(rotary, key.expand(1, 32, 1, 8))[0, :, 0]
    products = turned_queries @ turned_keys.T
    for distance in range(5):
        diagonal = products.diagonal(-distance)
        assert torch.allclose(diagonal, diagonal[0].expand_as(diagonal), atol=1e-4)


def test_sinusoids_match_the_paper():
    table = sinusoidal_table(context_length=50, d_model=6) * math.sqrt(6)
    for t in (0, 1, 49):
        for i in range(3):
            angle = t / 10_000 ** (2 * i / 6)
            assert table[t, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-6)
            assert table[t, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-6)


@pytest.mark.parametrize(
    ("heads", "exponents"),
    [(8, [1, 2, 3, 4, 5, 6, 7, 8]), (2, [4, 8]), (1, [8]), (6, [2, 4, 6, 8, 1, 3]), (3, [4, 8, 2])],
)
def test_slopes_of_alibi(heads, exponents):
    assert alibi_slopes(heads).tolist() == [2.0**-exponent for exponent in exponents]


def test_positions_count_only_tokens():
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 0, 0], [0, 1, 0, 1, 1]]).bool()
    assert token_positions(mask).tolist() == [[0, 0, 0, 1, 2], [0, 1, 2, 2, 2], [0, 0, 0, 1, 2]]


def test_masks_written_out():
    def seen(**options):
        positions = torch.arange(4)[None]
        new = positions[:, -rows:]
        table = AttentionMask(new, positions, new, mask).visible(**options)
        return ["".join(".x"[key] for key in row) for row in table[0, 0].long().tolist()]

    rows, mask = 4, None
    assert seen(causal=True, window=None) == ["x...", "xx..", "xxx.", "xxxx"]
    assert seen(causal=True, window=2) == ["x...", "xx..", ".xx.", "..xx"]
    assert seen(causal=False, window=None) == ["xxxx"] * 4
    mask = torch.tensor([[False, True, True, True]])
    assert seen(causal=True, window=None) == ["x...", ".x..", ".xx.", ".xxx"]
    rows = 2
    assert seen(causal=True, window=None) == [".xx.", ".xxx"]


@pytest.mark.parametrize("n_kv_head", [1, 2, 4])
@pytest.mark.parametrize("qk_norm", [None, "head", "all"])
def test_attention_is_the_weighted_mean_of_values(n_kv_head, qk_norm):
    bias = qk_norm is None
    config = small_config(n_head=4, n_kv_head=n_kv_head, qk_norm=qk_norm, bias=bias)
    attention = Attention(config)
    x = torch.randn(2, 7, config.d_model)
    size, group = config.head_size, 4 // n_kv_head

    def normed(z):
        return z / (z.pow(2).mean(-1, keepdim=True) + config.norm_eps).sqrt()

    queries, keys, values = attention.query(x), attention.key(x), attention.value(x)
    if qk_norm == "all":
        queries, keys = normed(queries), normed(keys)
    expected = torch.zeros(2, 7, config.d_model)
    for head in range(4):
        rows = slice(head * size, (head + 1) * size)
        kv_rows = slice(head // group * size, (head // group + 1) * size)
        q, k, v = queries[..., rows], keys[..., kv_rows], values[..., kv_rows]
        if qk_norm == "head":
            q, k = normed(q), normed(k)
        scores = q @ k.transpose(1, 2) / math.sqrt(size)
        future = torch.ones(7, 7, dtype=torch.bool).triu(1)
        expected[..., rows] = scores.masked_fill(future, -torch.inf).softmax(-1) @ v
    assert torch.allclose(attention(x, CAUSAL), attention.output(expected), atol=1e-5)


ACTIVATIONS = {
    "gelu": lambda x: 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "silu": lambda x: x * x.sigmoid(),
    "relu": lambda x: x.clamp(min=0),
    "relu2": lambda x: x.clamp(min=0) ** 2,
}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", [*ACTIVATIONS, "swiglu", "geglu"])
def test_feed_forwards(name, bias):
    config = small_config(bias=bias, feed_forward=name)
    part, x = FeedForward(config), torch.randn(3, config.d_model)
    if name in ACTIVATIONS:
        inner = ACTIVATIONS[name](part.up(x))
    else:
        inner = ACTIVATIONS[{"swiglu": "silu", "geglu": "gelu"}[name]](part.gate(x)) * part.up(x)
    assert torch.allclose(part(x), part.down(inner), atol=1e-6)
    assert (part.down.bias is not None) == bias


def test_norms():
    x = torch.randn(3, 32) * 5 + 2
    rms = make_norm(small_config(norm="rmsnorm", norm_eps=1e-3))
    assert torch.allclose(rms(x), x / (x.pow(2).mean(-1, keepdim=True) + 1e-3).sqrt(), atol=1e-5)
    layer = make_norm(small_config(norm="layernorm", norm_eps=1e-3, bias=True))
    assert torch.allclose(layer(x), F.layer_norm(x, (32,), eps=1e-3))
    assert make_norm(small_config(norm="layernorm", bias=False)).bias is None


@pytest.mark.parametrize("place", ["pre", "post", "reordered"])
def test_norm_positions(place):
    block = Block(small_config(norm_position=place))
    x = torch.randn(2, 5, 32)
    attend, feed = (lambda z: block.attention(z, CAUSAL)), block.feed_forward
    first, second = block.attention_norm, block.feed_forward_norm
    match place:
        case "pre":
            y = x + attend(first(x))
            expected = y + feed(second(y))
        case "post":
            y = first(x + attend(x))
            expected = second(y + feed(y))
        case "reordered":
            y = x + first(attend(x))
            expected = y + second(feed(y))
    assert torch.allclose(block(x, CAUSAL), expected, atol=1e-6)
