"""Every layer of the reference, with the same equation in torch."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from atlas.model.layers import ACTIVATIONS as MODEL_ACTIVATIONS
from atlas.model.layers import GATES as MODEL_GATES
from atlas.reference.attention import (
    attention_backward,
    attention_forward,
    dot_product_attention_backward,
    dot_product_attention_forward,
)
from atlas.reference.block import (
    feed_forward_backward,
    feed_forward_forward,
    residual_backward,
    residual_forward,
)
from atlas.reference.layers import (
    ACTIVATIONS,
    GATES,
    NORMS,
    embedding_backward,
    embedding_forward,
    linear_backward,
    linear_forward,
    softmax_backward,
    softmax_forward,
)
from atlas.reference.positions import attention_mask, rope_backward, rope_forward, rope_rotation
from atlas.reference.training import cross_entropy_backward, cross_entropy_forward
from tests.reference.gradients import small_options

IDS = np.array([[1, 4, 1], [4, 4, 0]])
TARGETS = np.array([[3, -100, 0], [-100, 2, 3]])
BOOLEAN = np.tri(5, dtype=bool)
ADDITIVE = np.where(BOOLEAN, np.linspace(-1, 1, 2 * 4 * 25).reshape(2, 4, 5, 5), -np.inf)


@dataclass
class LayerCase:
    """A layer of the reference and its equation in torch.

    Attributes:
        shapes: of the inputs, by name.
        run: arrays by name to the output, and a function from dout to gradients by name.
        equation: the same output in torch.
    """

    shapes: dict[str, tuple[int, ...]]
    run: Callable
    equation: Callable[[dict[str, Tensor]], Tensor]


def unweighted(forward, backward, *rest):
    """Run a layer without weights."""

    def run(arrays):
        out, cache = forward(*arrays.values(), *rest)

        def back(dout):
            gradients = backward(dout, cache)
            if not isinstance(gradients, tuple):
                gradients = (gradients,)
            return dict(zip(arrays, gradients, strict=True))

        return out, back

    return run


def weighted(forward, backward, *rest):
    """Run a layer with weights; its input is x."""

    def run(arrays):
        parameters = {name: array for name, array in arrays.items() if name != "x"}
        out, cache = forward(arrays["x"], parameters, *rest)

        def back(dout):
            dx, gradients = backward(dout, cache)
            return {"x": dx} | gradients

        return out, back

    return run


def embedding(arrays):
    out, cache = embedding_forward(IDS, arrays)
    return out, lambda dout: embedding_backward(dout, cache)


def linear_shapes(name, rows, columns, bias=False):
    shapes = {f"{name}.weight": (rows, columns)}
    return shapes | ({f"{name}.bias": (rows,)} if bias else {})


def torch_norm(kind):
    return {
        "layernorm": lambda t: F.layer_norm(t["x"], (6,), t["weight"], t.get("bias"), 1e-3),
        "rmsnorm": lambda t: F.rms_norm(t["x"], (6,), t["weight"], 1e-3),
    }[kind]


POSITIONS = np.array([[0, 0, 1, 2, 3], [0, 1, 2, 3, 4]])


def rotate(x: Tensor, theta: float, scaling: float) -> Tensor:
    """RoPE as a rotation in the complex plane."""
    half = x.shape[-1] // 2
    angles = torch.tensor(POSITIONS)[:, None, :, None] / scaling
    angles = angles * theta ** (-2 * torch.arange(half, dtype=torch.float64) / x.shape[-1])
    points = torch.complex(x[..., :half], x[..., half:]) * torch.polar(
        torch.ones_like(angles), angles
    )
    return torch.cat((points.real, points.imag), -1)


def rope(arrays):
    options = small_options(d_head=6, rope_theta=100.0, rope_scaling=2.0)
    rotation = rope_rotation(POSITIONS, options, arrays["x"].dtype)
    out, cache = rope_forward(arrays["x"], rotation)
    return out, lambda dout: {"x": rope_backward(dout, cache)}


def sdpa(mask):
    def equation(t):
        query, group = t["query"], t["query"].shape[1] // t["key"].shape[1]
        key, value = (t[name].repeat_interleave(group, 1) for name in ("key", "value"))
        return F.scaled_dot_product_attention(
            query, key, value, None if mask is None else torch.tensor(mask)
        )

    def run(arrays):
        typed = mask.astype(arrays["query"].dtype) if mask is ADDITIVE else mask
        return unweighted(dot_product_attention_forward, dot_product_attention_backward, typed)(
            arrays
        )

    return LayerCase(
        {"query": (2, 4, 5, 3), "key": (2, 2, 5, 3), "value": (2, 2, 5, 3)}, run, equation
    )


def attention(qk_norm, positions, bias=False):
    options = small_options(
        d_model=24, qk_norm=qk_norm, positions=positions, rope_theta=100.0, window=3
    )
    padding = np.array([[False, True, True, True, True], [True] * 5])

    def run(arrays):
        dtype = arrays["x"].dtype
        rotation = rope_rotation(POSITIONS, options, dtype) if positions == "rope" else None
        mask = attention_mask(options, POSITIONS, padding, dtype)
        return weighted(attention_forward, attention_backward, options, mask, rotation)(arrays)

    def heads(t, name, count):
        x = F.linear(t["x"], t[f"{name}.weight"], t.get(f"{name}.bias"))
        if qk_norm == "all" and name != "value":
            x = F.rms_norm(x, (count * 6,), t[f"{name}_norm.weight"], options.norm_eps)
        x = x.unflatten(-1, (count, 6)).transpose(1, 2)
        if qk_norm == "head" and name != "value":
            x = F.rms_norm(x, (6,), t[f"{name}_norm.weight"], options.norm_eps)
        return rotate(x, 100.0, 1.0) if positions == "rope" and name != "value" else x

    def equation(t):
        mask = torch.tensor(attention_mask(options, POSITIONS, padding, np.float64))
        mixed = F.scaled_dot_product_attention(
            heads(t, "query", 4),
            heads(t, "key", 2).repeat_interleave(2, 1),
            heads(t, "value", 2).repeat_interleave(2, 1),
            mask,
        )
        return F.linear(mixed.transpose(1, 2).flatten(2), t["output.weight"], t.get("output.bias"))

    shapes = {"x": (2, 5, 24)}
    for name, count in {"query": 24, "key": 12, "value": 12, "output": 24}.items():
        shapes |= linear_shapes(name, count, 24, bias)
    norms = {"head": (6, 6), "all": (24, 12)}.get(qk_norm, ())
    shapes |= {f"{n}_norm.weight": (c,) for n, c in zip(("query", "key"), norms, strict=False)}
    return LayerCase(shapes, run, equation)


def feed_forward(kind, bias):
    gate = MODEL_GATES.get(kind)

    def equation(t):
        def linear(x, name):
            return F.linear(x, t[f"{name}.weight"], t.get(f"{name}.bias"))

        up = linear(t["x"], "up")
        inner = gate(linear(t["x"], "gate")) * up if gate else MODEL_ACTIVATIONS[kind](up)
        return linear(inner, "down")

    shapes = {"x": (2, 3, 4)} | linear_shapes("up", 6, 4, bias) | linear_shapes("down", 4, 6, bias)
    if gate:
        shapes |= linear_shapes("gate", 6, 4, bias)
    return LayerCase(shapes, weighted(feed_forward_forward, feed_forward_backward, kind), equation)


def residual(position):
    options = small_options(d_model=4, norm="layernorm", norm_position=position, positions="none")

    def run(arrays):
        out, cache = residual_forward(arrays["x"], arrays, "f", options, linear_forward)

        def back(dout):
            dx, gradients = residual_backward(dout, cache, linear_backward)
            return {"x": dx} | gradients

        return out, back

    def equation(t):
        def norm(x):
            return F.layer_norm(x, (4,), t["f_norm.weight"], eps=options.norm_eps)

        def f(x):
            return F.linear(x, t["f.weight"])

        x = t["x"]
        return {"pre": x + f(norm(x)), "post": norm(x + f(x)), "reordered": x + norm(f(x))}[
            position
        ]

    return LayerCase({"x": (2, 3, 4), "f_norm.weight": (4,), "f.weight": (4, 4)}, run, equation)


LAYERS = {
    "linear": LayerCase(
        {"x": (2, 3, 4), "weight": (5, 4), "bias": (5,)},
        weighted(linear_forward, linear_backward),
        lambda t: F.linear(t["x"], t["weight"], t["bias"]),
    ),
    "linear without bias": LayerCase(
        {"x": (2, 3, 4), "weight": (5, 4)},
        weighted(linear_forward, linear_backward),
        lambda t: F.linear(t["x"], t["weight"]),
    ),
    "embedding": LayerCase(
        {"weight": (6, 4)}, embedding, lambda t: F.embedding(torch.tensor(IDS), t["weight"])
    ),
    **{
        name: LayerCase(
            {"x": (2, 3, 4)},
            unweighted(*ACTIVATIONS[name]),
            lambda t, f=MODEL_ACTIVATIONS[name]: f(t["x"]),
        )
        for name in ACTIVATIONS
    },
    "softmax": LayerCase(
        {"x": (2, 3, 4)},
        unweighted(softmax_forward, softmax_backward),
        lambda t: t["x"].softmax(-1),
    ),
    "layernorm": LayerCase(
        {"x": (2, 3, 6), "weight": (6,), "bias": (6,)},
        weighted(*NORMS["layernorm"], 1e-3),
        torch_norm("layernorm"),
    ),
    **{
        f"{kind} without bias": LayerCase(
            {"x": (2, 3, 6), "weight": (6,)}, weighted(*NORMS[kind], 1e-3), torch_norm(kind)
        )
        for kind in NORMS
    },
    "cross-entropy": LayerCase(
        {"logits": (2, 3, 4)},
        unweighted(
            lambda logits: cross_entropy_forward(logits, TARGETS),
            lambda dout, cache: cross_entropy_backward(dout, cache),
        ),
        lambda t: F.cross_entropy(t["logits"].flatten(0, 1), torch.tensor(TARGETS).flatten()),
    ),
    "rope": LayerCase({"x": (2, 3, 5, 6)}, rope, lambda t: rotate(t["x"], 100.0, 2.0)),
    "dot product attention": sdpa(None),
    "dot product attention, boolean mask": sdpa(BOOLEAN),
    "dot product attention, additive mask": sdpa(ADDITIVE),
    "attention": attention(None, "none"),
    "attention with bias and alibi": attention(None, "alibi", bias=True),
    "attention with qk-norm by head and rope": attention("head", "rope"),
    "attention with qk-norm over all and rope": attention("all", "rope", bias=True),
    **{
        f"feed-forward {kind}{', bias' * bias}": feed_forward(kind, bias)
        for kind in (*ACTIVATIONS, *GATES)
        for bias in (False, True)
    },
    **{f"residual {position}": residual(position) for position in ("pre", "post", "reordered")},
}
