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

    Raises:
        ValueError: a value is not allowed, or two values are incompatible.
    """

    vocab_size: int  # V
    context_length: int  # maximum T
    d_model: int  # C, channels of the residual stream
    n_layer: int  # number of blocks
    n_head: int  # H, query heads
    n_kv_head: int  # K, key and value heads; divides H
    d_ff: int  # F, inner width of the feed-forward layer
    positions: Positions = "rope"  # positions.py
    rope_theta: float = 10_000.0  # base of RoPE's angles
    rope_scaling: float = 1.0  # divides positions (position interpolation, arXiv:2306.15595)
    norm: str = "rmsnorm"  # a key of NORMS
    norm_position: NormPosition = "pre"  # block.py; "post" has no final norm
    norm_eps: float = 1e-5  # keeps norms from dividing by 0
    feed_forward: str = "swiglu"  # a key of GATES or ACTIVATIONS
    qk_norm: QkNorm | None = None  # RMSNorm of queries and keys, per head or over all channels
    bias: bool = False  # of linear layers and LayerNorm; the head never has one
    tied_head: bool = True  # use the embedding as the head (arXiv:1608.05859)
    window: int | None = None  # tokens a query sees, itself included; None for all

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
