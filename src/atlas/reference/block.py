"""A block of the decoder: attention, then a feed-forward layer, each with a norm and a residual.

pre         x + f(norm(x))    GPT-2, Llama (arXiv:2002.04745)
post        norm(x + f(x))    the first transformer (arXiv:1706.03762)
reordered   x + norm(f(x))    OLMo 2 (arXiv:2501.00656)

The feed-forward layer works on each token by itself, from C channels to F and back:

plain   down(act(up(x)))                GELU (GPT-2), SiLU, ReLU or ReLU^2
gated   down(act(gate(x)) * up(x))      SwiGLU with SiLU (Llama), GEGLU with GELU
        (arXiv:2002.05202)

Legend: B batch, T time, C channels, F feed-forward width.
"""

from collections.abc import Callable

from atlas.reference.attention import attention_backward, attention_forward
from atlas.reference.layers import (
    ACTIVATIONS,
    GATES,
    NORMS,
    Array,
    Cache,
    Gradients,
    Parameters,
    join,
    linear_backward,
    linear_forward,
    sub_parameters,
)
from atlas.reference.options import Options
from atlas.reference.positions import Rotation

Forward = Callable[[Array, Parameters], tuple[Array, Cache]]
Backward = Callable[[Array, Cache], tuple[Array, Gradients]]


def feed_forward_forward(x: Array, parameters: Parameters, kind: str) -> tuple[Array, Cache]:
    """Apply the layer to x, (B, T, C); ``kind`` is a key of ``GATES`` or ``ACTIVATIONS``."""
    activation_forward, _ = {**GATES, **ACTIVATIONS}[kind]
    cache: dict[str, Cache] = {"kind": kind}
    hidden, cache["up"] = linear_forward(x, sub_parameters(parameters, "up"))  # (B, T, F)
    if kind in GATES:
        gate, cache["gate"] = linear_forward(x, sub_parameters(parameters, "gate"))  # (B, T, F)
        active, cache["activation"] = activation_forward(gate)  # (B, T, F)
        cache["factors"] = (active, hidden)
        hidden = active * hidden  # (B, T, F)
    else:
        hidden, cache["activation"] = activation_forward(hidden)  # (B, T, F)
    out, cache["down"] = linear_forward(hidden, sub_parameters(parameters, "down"))  # (B, T, C)
    return out, cache


def feed_forward_backward(dout: Array, cache: Cache) -> tuple[Array, Gradients]:
    """Return the gradients of x, (B, T, C), and of the weights."""
    _, activation_backward = {**GATES, **ACTIVATIONS}[cache["kind"]]
    dhidden, down = linear_backward(dout, cache["down"])  # (B, T, F)
    if cache["kind"] not in GATES:
        dup = activation_backward(dhidden, cache["activation"])  # (B, T, F)
        dx, up = linear_backward(dup, cache["up"])  # (B, T, C)
        return dx, join({"up": up, "down": down})
    active, factor = cache["factors"]  # (B, T, F) each
    dgate = activation_backward(dhidden * factor, cache["activation"])  # (B, T, F)
    dx_gate, gate = linear_backward(dgate, cache["gate"])  # (B, T, C)
    dx_up, up = linear_backward(dhidden * active, cache["up"])  # (B, T, C)
    return dx_gate + dx_up, join({"gate": gate, "up": up, "down": down})


def residual_forward(
    x: Array, parameters: Parameters, name: str, options: Options, f: Forward
) -> tuple[Array, Cache]:
    """Apply the layer f, called ``name``, with norm and residual: (B, T, C) to (B, T, C)."""
    norm_forward, _ = NORMS[options.norm]
    weights, norm = (sub_parameters(parameters, key) for key in (name, f"{name}_norm"))
    match options.norm_position:
        case "pre":
            normed, norm_cache = norm_forward(x, norm, options.norm_eps)
            out, f_cache = f(normed, weights)
            out = x + out
        case "post":
            out, f_cache = f(x, weights)
            out, norm_cache = norm_forward(x + out, norm, options.norm_eps)
        case "reordered":
            out, f_cache = f(x, weights)
            out, norm_cache = norm_forward(out, norm, options.norm_eps)
            out = x + out
    return out, {"name": name, "options": options, "norm": norm_cache, "f": f_cache}


def residual_backward(dout: Array, cache: Cache, f_backward: Backward) -> tuple[Array, Gradients]:
    """Return the gradients of x, (B, T, C), and of the weights of the norm and of f.

    x reaches the output by two paths, so its gradient is the sum of both.
    """
    options, name = cache["options"], cache["name"]
    _, norm_backward = NORMS[options.norm]
    match options.norm_position:
        case "pre":
            dnormed, f = f_backward(dout, cache["f"])
            dx, norm = norm_backward(dnormed, cache["norm"])
            dx = dx + dout
        case "post":
            dsum, norm = norm_backward(dout, cache["norm"])
            dx, f = f_backward(dsum, cache["f"])
            dx = dx + dsum
        case "reordered":
            dbranch, norm = norm_backward(dout, cache["norm"])
            dx, f = f_backward(dbranch, cache["f"])
            dx = dx + dout
    return dx, join({f"{name}_norm": norm, name: f})


def block_forward(
    x: Array, parameters: Parameters, options: Options, mask: Array, rotation: Rotation | None
) -> tuple[Array, Cache]:
    """Apply a block to x, (B, T, C), with a mask from ``attention_mask`` and RoPE's rotation."""

    def attention(x: Array, weights: Parameters) -> tuple[Array, Cache]:
        return attention_forward(x, weights, options, mask, rotation)

    def feed_forward(x: Array, weights: Parameters) -> tuple[Array, Cache]:
        return feed_forward_forward(x, weights, options.feed_forward)

    cache: dict[str, Cache] = {}
    x, cache["attention"] = residual_forward(x, parameters, "attention", options, attention)
    x, cache["feed_forward"] = residual_forward(
        x, parameters, "feed_forward", options, feed_forward
    )
    return x, cache


def block_backward(dout: Array, cache: Cache) -> tuple[Array, Gradients]:
    """Return the gradients of x, (B, T, C), and of the weights."""
    dx, feed_forward = residual_backward(dout, cache["feed_forward"], feed_forward_backward)
    dx, attention = residual_backward(dx, cache["attention"], attention_backward)
    return dx, attention | feed_forward
