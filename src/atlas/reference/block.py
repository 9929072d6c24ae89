"""A block of the decoder: attention, then feed-forward, each with a norm and a way around it.

pre     x + f(norm(x))   (Xiong et al. 2020, arXiv:2002.04745; GPT-2, Llama)
post    norm(x + f(x))   (the first transformer, arXiv:1706.03762)
reordered  x + norm(f(x))   (OLMo 2, arXiv:2501.00656)

The feed-forward part of a block: each token on its own, out to F channels and back to C.

plain   down(act(up(x)))                with GELU (GPT-2), SiLU, ReLU or ReLU^2
gated   down(act(gate(x)) * up(x))      SwiGLU with SiLU (Llama), GEGLU with GELU
        (Shazeer 2020, arXiv:2002.05202)
"""

from collections.abc import Callable
from functools import partial

from atlas.reference.attention import attention_backward, attention_forward
from atlas.reference.layers import (
    ACTIVATIONS,
    NORMS,
    Array,
    Cache,
    Gradients,
    Parameters,
    linear_backward,
    linear_forward,
    part,
    whole,
)
from atlas.reference.options import Options
from atlas.reference.positions import Rotation

GATED = {"swiglu": "silu", "geglu": "gelu"}  # the activation of the gate


def feed_forward_forward(x: Array, parameters: Parameters, kind: str) -> tuple[Array, Cache]:
    """(B, T, C) to (B, T, C); ``kind`` is ``swiglu``, ``geglu`` or the name of an activation."""
    forward = gated_forward if kind in GATED else plain_forward
    out, cache = forward(x, parameters, GATED.get(kind, kind))
    return out, (kind, cache)


def feed_forward_backward(dout: Array, cache: Cache) -> tuple[Array, Gradients]:
    """(B, T, C) to (B, T, C), and the gradients of the weights."""
    kind, cache = cache
    return gated_backward(dout, cache) if kind in GATED else plain_backward(dout, cache)


def plain_forward(x: Array, parameters: Parameters, activation: str) -> tuple[Array, Cache]:
    """down(act(up(x)))."""
    activation_forward, activation_backward = ACTIVATIONS[activation]
    up, up_cache = linear_forward(x, part(parameters, "up"))  # (B, T, F)
    active, activation_cache = activation_forward(up)  # (B, T, F)
    out, down_cache = linear_forward(active, part(parameters, "down"))  # (B, T, C)
    return out, (up_cache, activation_backward, activation_cache, down_cache)


def plain_backward(dout: Array, cache: Cache) -> tuple[Array, Gradients]:
    """(B, T, C) to (B, T, C), and the gradients of the weights."""
    up_cache, activation_backward, activation_cache, down_cache = cache
    dactive, down = linear_backward(dout, down_cache)  # (B, T, F)
    dup = activation_backward(dactive, activation_cache)  # (B, T, F)
    dx, up = linear_backward(dup, up_cache)  # (B, T, C)
    return dx, whole("up", up) | whole("down", down)


def gated_forward(x: Array, parameters: Parameters, activation: str) -> tuple[Array, Cache]:
    """down(act(gate(x)) * up(x))."""
    activation_forward, activation_backward = ACTIVATIONS[activation]
    gate, gate_cache = linear_forward(x, part(parameters, "gate"))  # (B, T, F)
    up, up_cache = linear_forward(x, part(parameters, "up"))  # (B, T, F)
    active, activation_cache = activation_forward(gate)  # (B, T, F)
    out, down_cache = linear_forward(active * up, part(parameters, "down"))  # (B, T, C)
    caches = (gate_cache, up_cache, activation_cache, down_cache)
    return out, (active, up, activation_backward, caches)


def gated_backward(dout: Array, cache: Cache) -> tuple[Array, Gradients]:
    """(B, T, C) to (B, T, C), and the gradients of the weights."""
    active, up, activation_backward, caches = cache
    gate_cache, up_cache, activation_cache, down_cache = caches
    dproduct, down = linear_backward(dout, down_cache)  # (B, T, F)
    dgate = activation_backward(dproduct * up, activation_cache)  # (B, T, F)
    dx_gate, gate = linear_backward(dgate, gate_cache)  # (B, T, C)
    dx_up, up_gradients = linear_backward(dproduct * active, up_cache)  # (B, T, C)
    gradients = whole("gate", gate) | whole("up", up_gradients) | whole("down", down)
    return dx_gate + dx_up, gradients


Forward = Callable[[Array], tuple[Array, Cache]]
Backward = Callable[[Array, Cache], tuple[Array, Gradients]]


def residual_forward(
    x: Array, norm: Parameters, options: Options, f: Forward
) -> tuple[Array, Cache]:
    """The part ``f`` with its norm and the way around them: (B, T, C) to (B, T, C)."""
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
    """(B, T, C) to (B, T, C), the gradients of the norm's weights, and those of f's.

    Where the stream parts in two, the gradients of the two ways add up.
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
    """(B, T, C) to (B, T, C), with the mask and the rotation of ``decoder_forward``."""
    attention = partial(
        attention_forward,
        parameters=part(parameters, "attention"),
        options=options,
        mask=mask,
        rotation=rotation,
    )
    feed_forward = partial(
        feed_forward_forward,
        parameters=part(parameters, "feed_forward"),
        kind=options.feed_forward,
    )
    x, attention_cache = residual_forward(x, part(parameters, "attention_norm"), options, attention)
    x, feed_forward_cache = residual_forward(
        x, part(parameters, "feed_forward_norm"), options, feed_forward
    )
    return x, {"attention": attention_cache, "feed_forward": feed_forward_cache}


def block_backward(dout: Array, cache: Cache) -> tuple[Array, Gradients]:
    """(B, T, C) to (B, T, C), and the gradients of the weights."""
    dx, feed_forward_norm, feed_forward = residual_backward(
        dout, cache["feed_forward"], feed_forward_backward
    )
    dx, attention_norm, attention = residual_backward(dx, cache["attention"], attention_backward)
    gradients = (
        whole("attention_norm", attention_norm)
        | whole("attention", attention)
        | whole("feed_forward_norm", feed_forward_norm)
        | whole("feed_forward", feed_forward)
    )
    return dx, gradients
