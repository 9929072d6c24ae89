"""The feed-forward part of a block: each token on its own, out to F channels and back to C.

plain   down(act(up(x)))                with GELU (GPT-2), SiLU, ReLU or ReLU^2
gated   down(act(gate(x)) * up(x))      SwiGLU with SiLU (Llama), GEGLU with GELU
        (Shazeer 2020, arXiv:2002.05202)
"""

from atlas.reference.activations import ACTIVATIONS
from atlas.reference.arrays import Array, Cache, Gradients, Parameters, part, whole
from atlas.reference.linear import linear_backward, linear_forward

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
