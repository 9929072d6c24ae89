"""The options of a decoder, named as in the section ``model`` of params.yaml."""

from dataclasses import dataclass
from typing import Literal, get_args

from atlas.reference.layers import ACTIVATIONS, GATES, NORMS

Positions = Literal["learned", "sinusoidal", "rope", "alibi", "none"]
NormPosition = Literal["pre", "post", "reordered"]
QkNorm = Literal["head", "all"]
CHOICES = {
    "positions": get_args(Positions),
    "norm": (*NORMS,),
    "norm_position": get_args(NormPosition),
    "feed_forward": (*ACTIVATIONS, *GATES),
    "qk_norm": (None, *get_args(QkNorm)),
}
SIZES = ("vocab_size", "context_length", "d_model", "n_layer", "n_head", "n_kv_head", "d_ff")


@dataclass(frozen=True)
class Options:
    """Architecture of a decoder; the defaults are Llama's.

    Attributes:
        vocab_size: V, number of token ids.
        context_length: maximum T.
        d_model: C, channels of the residual stream.
        n_layer: number of blocks.
        n_head: H, query heads.
        n_kv_head: K, key and value heads; divides H.
        d_ff: F, inner width of the feed-forward layer.
        positions: position encoding (``positions.py``).
        rope_theta: base of RoPE's angles.
        rope_scaling: RoPE divides positions by this (position interpolation, arXiv:2306.15595).
        norm: a key of ``NORMS`` (``layers.py``).
        norm_position: where a block has its norms (``block.py``); ``post`` has no final norm.
        norm_eps: keeps norms from dividing by 0.
        feed_forward: a key of ``GATES`` or ``ACTIVATIONS`` (``layers.py``).
        qk_norm: RMSNorm of queries and keys, per ``head`` or over ``all`` channels.
        bias: give linear layers and LayerNorm a bias; the head never has one.
        tied_head: use the embedding as the head (arXiv:1608.05859).
        window: number of tokens a query sees, itself included; None for all.

    Raises:
        ValueError: a value is not allowed, or two values are incompatible.
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
    norm: str = "rmsnorm"
    norm_position: NormPosition = "pre"
    norm_eps: float = 1e-5
    feed_forward: str = "swiglu"
    qk_norm: QkNorm | None = None
    bias: bool = False
    tied_head: bool = True
    window: int | None = None

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            if (value := getattr(self, name)) not in allowed:
                choices = ", ".join(map(str, allowed))
                raise ValueError(f"{name} is {value!r}; it must be one of {choices}")
        for name in SIZES:
            if (size := getattr(self, name)) < 1:
                raise ValueError(f"{name} is {size}; it must be 1 or more")
        for name in ("rope_theta", "rope_scaling", "norm_eps"):
            if not (number := getattr(self, name)) > 0:
                raise ValueError(f"{name} is {number}; it must be greater than 0")
        if self.window is not None and self.window < 1:
            raise ValueError(f"window is {self.window}; it must be 1 or more, or None")
        if self.d_model % self.n_head:
            raise ValueError(f"d_model {self.d_model} is not divisible by n_head {self.n_head}")
        if self.n_head % self.n_kv_head:
            raise ValueError(f"n_head {self.n_head} is not divisible by n_kv_head {self.n_kv_head}")
        if self.positions == "rope" and self.head_size % 2:
            raise ValueError(
                f"d_model / n_head is {self.head_size}; it must be even for positions=rope, which "
                "rotates pairs of channels"
            )

    @property
    def head_size(self) -> int:
        """D, channels of a head."""
        return self.d_model // self.n_head
