"""A block of the decoder: attention, then feed-forward, each with a norm and a way around it.

pre     x + f(norm(x))   (Xiong et al. 2020, arXiv:2002.04745; GPT-2, Llama)
post    norm(x + f(x))   (the first transformer, arXiv:1706.03762)
branch  x + norm(f(x))   (OLMo 2, arXiv:2501.00656)
"""

from collections.abc import Callable
from functools import partial

from atlas.reference.arrays import Array, Cache, Gradients, Parameters, part, whole
from atlas.reference.attention import attention_backward, attention_forward
from atlas.reference.feed_forward import feed_forward_backward, feed_forward_forward
from atlas.reference.norm import NORMS
from atlas.reference.options import Options
from atlas.reference.positions import Rotation

Forward = Callable[[Array], tuple[Array, Cache]]
Backward = Callable[[Array, Cache], tuple[Array, Gradients]]


def residual_forward(
    x: Array, norm: Parameters, options: Options, f: Forward
) -> tuple[Array, Cache]:
    """The part ``f`` with its norm and the way around them: (B, T, C) to (B, T, C)."""
    norm_forward, _ = NORMS[options.norm]
    match options.norm_place:
        case "pre":
            normed, norm_cache = norm_forward(x, norm, options.norm_eps)
            out, f_cache = f(normed)
            out = x + out
        case "post":
            out, f_cache = f(x)
            out, norm_cache = norm_forward(x + out, norm, options.norm_eps)
        case "branch":
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
    match options.norm_place:
        case "pre":
            dnormed, f = f_backward(dout, cache["f"])
            dx, norm = norm_backward(dnormed, cache["norm"])
            dx = dx + dout
        case "post":
            dsum, norm = norm_backward(dout, cache["norm"])
            dx, f = f_backward(dsum, cache["f"])
            dx = dx + dsum
        case "branch":
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
