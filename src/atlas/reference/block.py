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
from functools import partial

from atlas.reference.attention import attention_backward, attention_forward
from atlas.reference.layers import (
    ACTIVATIONS,
    GATES,
    NORMS,
    Array,
    Cache,
    Gradients,
    Parameters,
    linear_backward,
    linear_forward,
    sub_parameters,
    with_prefix,
)
from atlas.reference.options import Options
from atlas.reference.positions import Rotation

Forward = Callable[[Array], tuple[Array, Cache]]
Backward = Callable[[Array, Cache], tuple[Array, Gradients]]


def feed_forward_forward(x: Array, parameters: Parameters, kind: str) -> tuple[Array, Cache]:
    """Apply the layer to x, (B, T, C); ``kind`` is a key of ``GATES`` or ``ACTIVATIONS``."""
    if kind in GATES:
        return gated_forward(x, parameters, kind)
    return plain_forward(x, parameters, kind)


def feed_forward_backward(dout: Array, cache: Cache) -> tuple[Array, Gradients]:
    """Return the gradients of x, (B, T, C), and of the weights."""
    return gated_backward(dout, cache) if cache["kind"] in GATES else plain_backward(dout, cache)


def plain_forward(x: Array, parameters: Parameters, kind: str) -> tuple[Array, Cache]:
    """down(act(up(x)))."""
    activation_forward, _ = ACTIVATIONS[kind]
    up, up_cache = linear_forward(x, sub_parameters(parameters, "up"))  # (B, T, F)
    active, activation_cache = activation_forward(up)  # (B, T, F)
    out, down_cache = linear_forward(active, sub_parameters(parameters, "down"))  # (B, T, C)
    cache = {"kind": kind, "up": up_cache, "activation": activation_cache, "down": down_cache}
    return out, cache


def plain_backward(dout: Array, cache: Cache) -> tuple[Array, Gradients]:
    """Return the gradients of x, (B, T, C), and of the weights."""
    _, activation_backward = ACTIVATIONS[cache["kind"]]
    dactive, down = linear_backward(dout, cache["down"])  # (B, T, F)
    dup = activation_backward(dactive, cache["activation"])  # (B, T, F)
    dx, up = linear_backward(dup, cache["up"])  # (B, T, C)
    return dx, with_prefix("up", up) | with_prefix("down", down)


def gated_forward(x: Array, parameters: Parameters, kind: str) -> tuple[Array, Cache]:
    """down(act(gate(x)) * up(x))."""
    activation_forward, _ = GATES[kind]
    gate, gate_cache = linear_forward(x, sub_parameters(parameters, "gate"))  # (B, T, F)
    up, up_cache = linear_forward(x, sub_parameters(parameters, "up"))  # (B, T, F)
    active, activation_cache = activation_forward(gate)  # (B, T, F)
    out, down_cache = linear_forward(active * up, sub_parameters(parameters, "down"))  # (B, T, C)
    cache = {"kind": kind, "factors": (active, up), "activation": activation_cache}
    return out, cache | {"gate": gate_cache, "up": up_cache, "down": down_cache}


def gated_backward(dout: Array, cache: Cache) -> tuple[Array, Gradients]:
    """Return the gradients of x, (B, T, C), and of the weights."""
    _, activation_backward = GATES[cache["kind"]]
    active, up = cache["factors"]  # (B, T, F) each
    dproduct, down_gradients = linear_backward(dout, cache["down"])  # (B, T, F)
    dgate = activation_backward(dproduct * up, cache["activation"])  # (B, T, F)
    dx_gate, gate_gradients = linear_backward(dgate, cache["gate"])  # (B, T, C)
    dx_up, up_gradients = linear_backward(dproduct * active, cache["up"])  # (B, T, C)
    gradients = (
        with_prefix("gate", gate_gradients)
        | with_prefix("up", up_gradients)
        | with_prefix("down", down_gradients)
    )
    return dx_gate + dx_up, gradients


def residual_forward(
    x: Array, norm: Parameters, options: Options, f: Forward
) -> tuple[Array, Cache]:
    """Apply a layer ``f`` with its norm and residual connection: (B, T, C) to (B, T, C)."""
    norm_forward, _ = NORMS[options.norm]
    match options.norm_position:
        case "pre":
            normed, norm_cache = norm_forward(x, norm, options.norm_eps)
            out, f_cache = f(normed)
            out = x + out
        case "post":
            out, f_cache = f(x)
            out, norm_cache = norm_forward(x + out, norm, options.norm_eps)
        case "reordered":
            out, f_cache = f(x)
            out, norm_cache = norm_forward(out, norm, options.norm_eps)
            out = x + out
    return out, {"options": options, "norm": norm_cache, "f": f_cache}


def residual_backward(
    dout: Array, cache: Cache, f_backward: Backward
) -> tuple[Array, Gradients, Gradients]:
    """Return the gradients of x, (B, T, C), of the norm's weights and of f's weights.

    x reaches the output by two paths, so its gradient is the sum of both.
    """
    options = cache["options"]
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
    return dx, norm, f


def block_forward(
    x: Array, parameters: Parameters, options: Options, mask: Array, rotation: Rotation | None
) -> tuple[Array, Cache]:
    """Apply a block to x, (B, T, C), with a mask from ``attention_mask`` and RoPE's rotation."""
    attention = partial(
        attention_forward,
        parameters=sub_parameters(parameters, "attention"),
        options=options,
        mask=mask,
        rotation=rotation,
    )
    feed_forward = partial(
        feed_forward_forward,
        parameters=sub_parameters(parameters, "feed_forward"),
        kind=options.feed_forward,
    )
    x, attention_cache = residual_forward(
        x, sub_parameters(parameters, "attention_norm"), options, attention
    )
    x, feed_forward_cache = residual_forward(
        x, sub_parameters(parameters, "feed_forward_norm"), options, feed_forward
    )
    return x, {"attention": attention_cache, "feed_forward": feed_forward_cache}


def block_backward(dout: Array, cache: Cache) -> tuple[Array, Gradients]:
    """Return the gradients of x, (B, T, C), and of the weights."""
    dx, feed_forward_norm, feed_forward = residual_backward(
        dout, cache["feed_forward"], feed_forward_backward
    )
    dx, attention_norm, attention = residual_backward(dx, cache["attention"], attention_backward)
    gradients = (
        with_prefix("attention_norm", attention_norm)
        | with_prefix("attention", attention)
        | with_prefix("feed_forward_norm", feed_forward_norm)
        | with_prefix("feed_forward", feed_forward)
    )
    return dx, gradients
