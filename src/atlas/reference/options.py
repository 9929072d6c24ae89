"""The options of a decoder, under the names of ``model`` in params.yaml."""

from dataclasses import dataclass
from typing import Literal, get_args

Positions = Literal["learned", "sinusoidal", "rope", "alibi", "none"]
Norm = Literal["layernorm", "rmsnorm"]
NormPlace = Literal["pre", "post", "reordered"]
FeedForward = Literal["gelu", "silu", "relu", "relu2", "swiglu", "geglu"]
QkNorm = Literal["head", "all"]
CHOICES = {
    "positions": get_args(Positions),
    "norm": get_args(Norm),
    "norm_position": get_args(NormPlace),
    "feed_forward": get_args(FeedForward),
    "qk_norm": (None, *get_args(QkNorm)),
}
SIZES = ("vocab_size", "context_length", "d_model", "n_layer", "n_head", "n_kv_head", "d_ff")


@dataclass(frozen=True)
class Options:
    """What a decoder is. The defaults are the Llama shape.

    Attributes:
        vocab_size: V, the number of ids.
        context_length: the most tokens of a row.
        d_model: C, channels of the residual stream.
        n_layer: number of blocks.
        n_head: H, query heads.
        n_kv_head: K, key and value heads; H is a multiple.
        d_ff: F, the inner width of the feed-forward part.
        positions: how a token knows where it stands (``positions.py``).
        rope_theta: the base of RoPE's angles.
        rope_scaling: positions are divided by it before they become angles; 1 for no scaling
            (position interpolation, arXiv:2306.15595).
        norm: which norm (``norm.py``).
        norm_position: where it stands (``block.py``); with ``post`` there is no final norm.
        norm_eps: what keeps a norm from dividing by 0.
        feed_forward: ``swiglu``, ``geglu`` or a plain activation (``feed_forward.py``).
        qk_norm: RMSNorm of queries and keys: ``head`` by head, over ``all`` channels, or None.
        bias: whether linear layers and LayerNorm have one; the head never has.
        tied_head: whether the head is the embedding (arXiv:1608.05859).
        window: how many tokens a token sees, itself included; None for all.

    Raises:
        ValueError: a value is not allowed, or two do not go together.
    """

    vocab_size: int
    context_length: int
    d_model: int
    n_layer: int
    n_head: int
    n_kv_head: int
    d_ff: int
    positions: Positions = "rope"
    rope_theta: float = 10_000.0
    rope_scaling: float = 1.0
    norm: Norm = "rmsnorm"
    norm_position: NormPlace = "pre"
    norm_eps: float = 1e-5
    feed_forward: FeedForward = "swiglu"
    qk_norm: QkNorm | None = None
    bias: bool = False
    tied_head: bool = True
    window: int | None = None

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            if (value := getattr(self, name)) not in allowed:
                raise ValueError(f"{name} is {value!r}: it is one of {', '.join(allowed)}")
        for name in SIZES:
            if (size := getattr(self, name)) < 1:
                raise ValueError(f"{name} is {size}: it is 1 or more")
        for name in ("rope_theta", "rope_scaling", "norm_eps"):
            if not (number := getattr(self, name)) > 0:
                raise ValueError(f"{name} is {number}: it is more than 0")
        if self.window is not None and self.window < 1:
            raise ValueError(f"window is {self.window}: it is 1 or more, or None")
        if self.d_model % self.n_head:
            raise ValueError(f"d_model {self.d_model} is not divisible by n_head {self.n_head}")
        if self.n_head % self.n_kv_head:
            raise ValueError(f"n_head {self.n_head} is not divisible by n_kv_head {self.n_kv_head}")
        if self.positions == "rope" and self.head_size % 2:
            raise ValueError(
                f"positions is rope and d_model / n_head is {self.head_size}: it must be even, "
                "rope turns pairs of channels"
            )

    @property
    def head_size(self) -> int:
        """D, the width of a head."""
        return self.d_model // self.n_head
