"""Positions and attention masks: sinusoids, RoPE, ALiBi, causal and sliding-window masks."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

WAVELENGTH = 10_000.0  # of the slowest sinusoid, over 2 pi (Vaswani et al. 2017)
ALIBI_EXPONENT = 8.0  # the last head's slope is 2^-8 (arXiv:2108.12409, section 3)


def sinusoidal_table(context_length: int, d_model: int) -> Tensor:
    """Sines and cosines of each position, (T, C) (Vaswani et al. 2017, arXiv:1706.03762, 3.5).

    Channel 2i is sin(t / 10000^(2i/C)), channel 2i + 1 the cosine. The paper multiplies the
    embeddings by sqrt(C); here the table is divided by it, which is the same proportion and leaves
    a tied head as it is.
    """
    exponents = torch.arange(0, d_model, 2, dtype=torch.float64) / d_model  # (C/2,)
    positions = torch.arange(context_length, dtype=torch.float64)
    angles = torch.outer(positions, WAVELENGTH**-exponents)  # (T, C/2)
    waves = torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)  # (T, C)
    return (waves / math.sqrt(d_model)).to(torch.get_default_dtype())


def alibi_slopes(n_head: int) -> Tensor:
    """The penalty per token of distance for each head, (H,) (ALiBi, arXiv:2108.12409).

    A geometric sequence that ends at 2^-8. If the number of heads is not a power of two, the
    remaining heads get every other slope of twice as many::

        n_head=4: 2^-2, 2^-4, 2^-6, 2^-8        n_head=3: 2^-4, 2^-8, 2^-2

    """
    whole = 2 ** math.floor(math.log2(n_head))
    slopes = [2 ** (-ALIBI_EXPONENT * (head + 1) / whole) for head in range(whole)]
    slopes += [
        2 ** (-ALIBI_EXPONENT * (2 * head + 1) / (2 * whole)) for head in range(n_head - whole)
    ]
    return torch.tensor(slopes)


class RotaryPositions(nn.Module):
    """RoPE (Su et al. 2021, arXiv:2104.09864) in the half-split form of Llama in transformers.

    Channel ``i`` of the first half of a head and channel ``i`` of the second are the two
    coordinates of a point; at position ``t`` it is turned by ``t / scaling * theta^(-2i/D)``. A
    scaling above 1 fits a longer context into the angles of a shorter one (position
    interpolation, arXiv:2306.15595).
    """

    cosine: Tensor  # (T, D), the same for both halves
    sine: Tensor  # (T, D), negative for the first half

    def __init__(self, head_size: int, context_length: int, theta: float, scaling: float) -> None:
        super().__init__()
        exponents = torch.arange(0, head_size, 2, dtype=torch.float64) / head_size
        positions = torch.arange(context_length, dtype=torch.float64) / scaling
        angles = torch.outer(positions, theta**-exponents)  # (T, D/2)
        cosine = torch.cat((angles.cos(), angles.cos()), dim=-1)
        sine = torch.cat((-angles.sin(), angles.sin()), dim=-1)
        kind = torch.get_default_dtype()
        self.register_buffer("cosine", cosine.to(kind), persistent=False)
        self.register_buffer("sine", sine.to(kind), persistent=False)

    def at(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines of positions (T,) or (B, T), to turn heads of (B, T, H, D)."""
        return self.cosine[positions].unsqueeze(-2), self.sine[positions].unsqueeze(-2)


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotate queries or keys (B, T, H, D) by the angles of ``RotaryPositions.at``."""
    halves_swapped = x.roll(x.shape[-1] // 2, dims=-1)
    return torch.addcmul(x * cosine, halves_swapped, sine)  # (B, T, H, D)


@dataclass
class Places:
    """Where the new tokens of a text stand, and all that they may look back at.

    Attributes:
        queries: positions of the new tokens, (T,) or (B, T).
        keys: positions of all tokens, (S,) or (B, S).
        columns: which of the keys each new token is, (T,) or (B, T).
        mask: which of the keys are tokens, (B, S); None if all up to a new one are.
    """

    queries: Tensor
    keys: Tensor
    columns: Tensor
    mask: Tensor | None = None

    @classmethod
    def of_masked(cls, mask: Tensor, before: int = 0) -> "Places":
        """Those of rows in which only some are tokens, (B, S), ``before`` of them not new."""
        keys = positions_of(mask)
        new = mask.shape[1] - before
        columns = torch.arange(before, before + new, device=mask.device)
        return cls(keys.narrow(1, before, new), keys, columns, mask)

    @classmethod
    def of_whole(cls, length: int, device: torch.device) -> "Places":
        """Those of texts of so many tokens, all of which are new."""
        all_of_them = torch.arange(length, device=device)
        return cls(all_of_them, all_of_them, all_of_them)


def positions_of(mask: Tensor) -> Tensor:
    """The position of each token (B, T): how many tokens of its row stand before it.

    What fills up a row counts for nothing, on whichever side of the tokens it is. ``mask`` (B, T)
    says which are tokens.
    """
    return (mask.cumsum(dim=1) - 1).clamp(min=0)


def visible_keys(places: Places, *, causal: bool, window: int | None) -> Tensor:
    """Which keys each query may see, (B or 1, 1, T, S).

    A query always sees itself, so even one that only fills up a row has something to look at.

    Args:
        places: of queries and keys.
        causal: whether later keys are hidden.
        window: how many tokens up to itself a query sees; None for all.
    """
    columns = torch.arange(places.keys.shape[-1], device=places.keys.device)  # (S,)
    own = _with_batch(places.columns)[:, :, None]  # (B or 1, T, 1)
    visible = columns <= own if causal else torch.ones_like(columns <= own)  # (B or 1, T, S)
    if places.mask is not None:
        visible = visible & places.mask[:, None, :]  # (B, T, S)
    if window:
        visible = visible & (_distance(places) < window)
    return (visible | (columns == own))[:, None]


def _distance(places: Places) -> Tensor:
    """How far before each query each key stands, (B or 1, T, S)."""
    return _with_batch(places.queries)[:, :, None] - _with_batch(places.keys)[:, None, :]


def _with_batch(positions: Tensor) -> Tensor:
    return positions if positions.dim() == 2 else positions[None]


def additive_mask(visible: Tensor, like: Tensor) -> Tensor:
    """Return 0 for visible keys and -inf for hidden ones, with the dtype of ``like``."""
    return like.new_zeros(()).masked_fill(~visible, -torch.inf)


def alibi_bias(places: Places, slopes: Tensor) -> Tensor:
    """The bias that ALiBi adds to the scores, (B or 1, H, T, S): lower with distance."""
    return -slopes[:, None, None] * _distance(places).abs()[:, None]
