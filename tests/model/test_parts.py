"""Each part of the model against the equation it stands for."""

import math

import pytest
import torch
import torch.nn.functional as F

from atlas.model.attention import Attention
from atlas.model.feed_forward import GeluFeedForward, SwiGluFeedForward
from atlas.model.norm import make_norm
from atlas.model.positions import RotaryPositions
from tests.small import small_config


def test_rope_is_a_rotation_in_the_complex_plane():
    rotary = RotaryPositions(head_size=8, context_length=16, theta=100.0)
    x = torch.randn(2, 3, 16, 8)
    points = torch.complex(x[..., :4], x[..., 4:])
    angles = torch.arange(16)[:, None] * 100.0 ** (-torch.arange(4) / 4)
    expected = points * torch.polar(torch.ones_like(angles), angles)
    turned = rotary(x)
    assert torch.allclose(turned[..., :4], expected.real, atol=1e-5)
    assert torch.allclose(turned[..., 4:], expected.imag, atol=1e-5)


def test_rope_sees_distances_alone():
    rotary = RotaryPositions(head_size=8, context_length=32, theta=10_000.0)
    query, key = torch.randn(8), torch.randn(8)
    turned_queries = rotary(query.expand(1, 1, 32, 8))[0, 0]
    turned_keys = rotary(key.expand(1, 1, 32, 8))[0, 0]
    products = turned_queries @ turned_keys.T
    for distance in range(5):
        diagonal = products.diagonal(-distance)
        assert torch.allclose(diagonal, diagonal[0].expand_as(diagonal), atol=1e-4)


@pytest.mark.parametrize("n_kv_head", [1, 2, 4])
@pytest.mark.parametrize("qk_norm", [False, True])
def test_attention_is_the_weighted_mean_of_values(n_kv_head, qk_norm):
    config = small_config(n_head=4, n_kv_head=n_kv_head, qk_norm=qk_norm, bias=not qk_norm)
    attention = Attention(config, rotary=None)
    x = torch.randn(2, 7, config.d_model)
    size, group = config.head_size, 4 // n_kv_head
    expected = torch.zeros(2, 7, config.d_model)
    for head in range(4):
        rows = slice(head * size, (head + 1) * size)
        kv_rows = slice(head // group * size, (head // group + 1) * size)
        q = attention.query(x)[..., rows]
        k = attention.key(x)[..., kv_rows]
        v = attention.value(x)[..., kv_rows]
        if qk_norm:
            q, k = (z / (z.pow(2).mean(-1, keepdim=True) + config.norm_eps).sqrt() for z in (q, k))
        scores = q @ k.transpose(1, 2) / math.sqrt(size)
        future = torch.ones(7, 7, dtype=torch.bool).triu(1)
        expected[..., rows] = scores.masked_fill(future, -torch.inf).softmax(-1) @ v
    assert torch.allclose(attention(x), attention.output(expected), atol=1e-5)


def test_feed_forwards():
    config = small_config(bias=True)
    x = torch.randn(3, config.d_model)
    gelu = GeluFeedForward(config)
    up = gelu.up(x)
    tanh_form = 0.5 * up * (1 + torch.tanh(math.sqrt(2 / math.pi) * (up + 0.044715 * up**3)))
    assert torch.allclose(gelu(x), gelu.down(tanh_form), atol=1e-6)
    swiglu = SwiGluFeedForward(config)
    gate = swiglu.gate(x)
    assert torch.allclose(swiglu(x), swiglu.down(gate * gate.sigmoid() * swiglu.up(x)), atol=1e-6)


def test_norms():
    x = torch.randn(3, 32) * 5 + 2
    rms = make_norm(small_config(norm="rmsnorm", norm_eps=1e-3))
    assert torch.allclose(rms(x), x / (x.pow(2).mean(-1, keepdim=True) + 1e-3).sqrt(), atol=1e-5)
    layer = make_norm(small_config(norm="layernorm", norm_eps=1e-3, bias=True))
    assert torch.allclose(layer(x), F.layer_norm(x, (32,), eps=1e-3))
    assert make_norm(small_config(norm="layernorm", bias=False)).bias is None
