"""The options of a decoder, named as in the section ``model`` of params.yaml."""

from dataclasses import dataclass
from typing import Literal, get_args

from atlas.reference.layers import ACTIVATIONS, GATES, NORMS

Positions = Literal["learned", "sinusoidal", "rope", "alibi", "none"]
NormPosition = Literal["pre", "post", "reordered"]
RopeScalingKind = Literal["linear", "llama3", "yarn"]
QkNorm = Literal["head", "all"]
BiasedParts = Literal["qkv", "norm", "qkv_norm"]
CHOICES = {
    "positions": get_args(Positions),
    "rope_scaling_kind": get_args(RopeScalingKind),
    "norm": (*NORMS,),
    "norm_position": get_args(NormPosition),
    "feed_forward": (*ACTIVATIONS, *GATES),
    "qk_norm": (None, *get_args(QkNorm)),
    "bias": (False, True, *get_args(BiasedParts)),
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
    d_head: int | None = None  # D, channels of a head; None for d_model / n_head
    positions: Positions = "rope"  # positions.py
    rope_theta: float = 10_000.0  # base of RoPE's angles
    rope_scaling: float = 1.0  # times that the context grows, positions.rope_frequencies
    rope_scaling_kind: RopeScalingKind = "linear"
    rope_scaling_context: int | None = None  # before scaling, for llama3 and yarn
    rope_scaling_rotations: tuple[float, float] | None = None  # low and high; None for the usual
    rotary_share: float = 1.0  # of the channels of a head, R / D
    no_rope_every: int | None = None  # every n-th block has no positions; None for no block
    norm: str = "rmsnorm"  # a key of NORMS
    norm_position: NormPosition = "pre"  # block.py; "post" has no final norm
    norm_eps: float = 1e-5  # keeps norms from dividing by 0
    feed_forward: str = "swiglu"  # a key of GATES or ACTIVATIONS
    qk_norm: QkNorm | None = None  # RMSNorm of queries and keys, per head or over all channels
    bias: bool | BiasedParts = False  # True: linear layers and LayerNorm; the head never has one
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
        for name in ("d_head", "no_rope_every", "window"):
            if (size := getattr(self, name)) is not None and size < 1:
                raise ValueError(f"{name} is {size}; it must be 1 or more, or None")
        if self.d_head is None and self.d_model % self.n_head:
            raise ValueError(f"d_model {self.d_model} is not divisible by n_head {self.n_head}")
        if self.n_head % self.n_kv_head:
            raise ValueError(f"n_head {self.n_head} is not divisible by n_kv_head {self.n_kv_head}")
        rotated = self.rotary_share * self.head_size
        if self.positions == "rope" and (self.rotary_channels % 2 or not self.rotary_channels):
            raise ValueError(
                f"rotary_share of a head is {rotated:g} channels; it must be 2 or more and even, "
                "because RoPE rotates pairs"
            )
        if self.rope_scaling_kind != "linear" and self.rope_scaling_context is None:
            raise ValueError(f"{self.rope_scaling_kind} needs rope_scaling_context")

    @property
    def head_size(self) -> int:
        """D, channels of a head."""
        return self.d_head or self.d_model // self.n_head

    @property
    def rotary_channels(self) -> int:
        """R, channels of a head that RoPE rotates."""
        return round(self.rotary_share * self.head_size)

    def has_bias(self, part: Literal["qkv", "norm", "linear"]) -> bool:
        """Return True if queries, keys and values, LayerNorm, or other linear layers have biases.

        Examples: all of them with True, the first two with ``qkv_norm``.
        """
        return self.bias is True or part in str(self.bias).split("_")

    def rotates(self, block: int) -> bool:
        """Return True if RoPE applies in a block, counted from 0."""
        return self.no_rope_every is None or (block + 1) % self.no_rope_every != 0
