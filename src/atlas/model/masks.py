"""Positions and attention masks: sinusoids, RoPE, ALiBi, causal and sliding-window masks."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from atlas.model.config import ModelConfig

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


ROTATIONS = {"llama3": (1.0, 4.0), "yarn": (1.0, 32.0)}  # of the authors' models


def rotary_frequencies(config: ModelConfig) -> tuple[Tensor, float]:
    """Return RoPE's angles per position, (R/2,) in float64, and the length of the rotated points.

    Pair ``i`` of R channels turns by ``theta^(-2i/R)`` per position. With ``rope_scaling`` s > 1, a
    context of s times the length fits into the angles that the model was trained on:

    - ``linear`` divides every frequency by s (position interpolation, arXiv:2306.15595);
    - ``llama3`` divides those of pairs that turn less than ``low`` times in the original context,
      keeps those that turn more than ``high`` times, and blends in between (Llama 3.1);
    - ``yarn`` does the same with a blend that is linear in ``i``, and lengthens the points by
      0.1 ln(s) + 1 (arXiv:2309.00071). The bounds are whole pairs, as in the authors' code.
    """
    channels, scaling, theta = config.rotary_channels, config.rope_scaling, config.rope_theta
    exponents = torch.arange(0, channels, 2, dtype=torch.float64) / channels
    frequencies = theta**-exponents  # (R/2,)
    kind, context = config.rope_scaling_kind, config.rope_scaling_context
    if kind == "linear" or context is None:
        return frequencies / scaling, 1.0
    low, high = config.rope_scaling_rotations or ROTATIONS[kind]
    if kind == "llama3":
        turns = context * frequencies / (2 * math.pi)
        kept = ((turns - low) / (high - low)).clamp(0, 1)
        return frequencies * (kept + (1 - kept) / scaling), 1.0
    # The pair, not rounded, that turns this many times in the context.
    first, last = (
        channels * math.log(context / (turns * 2 * math.pi)) / (2 * math.log(theta))
        for turns in (high, low)
    )
    begin, end = max(math.floor(first), 0), min(math.ceil(last), channels - 1)
    pairs = torch.arange(channels // 2, dtype=torch.float64)
    kept = 1 - ((pairs - begin) / (end - begin or 0.001)).clamp(0, 1)
    return frequencies * (kept + (1 - kept) / scaling), 0.1 * math.log(scaling) + 1


class RotaryPositions(nn.Module):
    """RoPE (Su et al. 2021, arXiv:2104.09864) in the half-split form of Llama in transformers.

    Of the R channels of a head that rotate, channel ``i`` of the first half and channel ``i`` of
    the second are the two coordinates of a point, which is turned by an angle proportional to the
    position. R is less than D if only a share rotates (GPT-NeoX, arXiv:2204.06745).
    """

    cosine: Tensor  # (T, R), the same for both halves
    sine: Tensor  # (T, R), negative for the first half

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        frequencies, length = rotary_frequencies(config)
        positions = torch.arange(config.context_length, dtype=torch.float64)
        angles = torch.outer(positions, frequencies)  # (T, R/2)
        cosine = torch.cat((angles.cos(), angles.cos()), dim=-1) * length
        sine = torch.cat((-angles.sin(), angles.sin()), dim=-1) * length
        kind = torch.get_default_dtype()
        self.register_buffer("cosine", cosine.to(kind), persistent=False)
        self.register_buffer("sine", sine.to(kind), persistent=False)

    def at(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines of positions (T,) or (B, T), to turn heads of (B, T, H, D)."""
        return self.cosine[positions].unsqueeze(-2), self.sine[positions].unsqueeze(-2)


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotate queries or keys (B, T, H, D) by the angles of ``RotaryPositions.at``."""
    channels = cosine.shape[-1]
    if channels < x.shape[-1]:
        rotated = rotate(x[..., :channels], cosine, sine)  # (B, T, H, R)
        return torch.cat((rotated, x[..., channels:]), dim=-1)  # (B, T, H, D)
    halves_swapped = x.roll(x.shape[-1] // 2, dims=-1)
    return torch.addcmul(x * cosine, halves_swapped, sine)  # (B, T, H, D)


@dataclass
class AttentionMask:
    """Positions of queries and keys, which determine the mask and the ALiBi bias."""

    query_positions: Tensor  # (T,) or (B, T)
    key_positions: Tensor  # (S,) or (B, S)
    query_columns: Tensor  # index of each query among the keys, (T,) or (B, T)
    is_token: Tensor | None = None  # False for padding, (B, S); None if no query can see padding
    documents: Tensor | None = None  # number of each token's document, (B, T); None: all the same

    @classmethod
    def without_padding(cls, length: int, device: torch.device) -> "AttentionMask":
        """Return the mask of sequences of ``length`` tokens."""
        positions = torch.arange(length, device=device)
        return cls(positions, positions, positions)

    @classmethod
    def from_padding(cls, is_token: Tensor, past: int = 0) -> "AttentionMask":
        """Return the mask of padded rows (B, S) whose first ``past`` columns are only keys."""
        positions = token_positions(is_token)
        new = is_token.shape[1] - past
        columns = torch.arange(past, past + new, device=is_token.device)
        return cls(positions.narrow(1, past, new), positions, columns, is_token)

    @classmethod
    def within_documents(cls, begins: Tensor) -> "AttentionMask":
        """Return the mask of rows that hold several documents, each apart from the others.

        ``begins`` (B, T) is True for the first token of a document, which has position 0.
        """
        columns = torch.arange(begins.shape[1], device=begins.device)  # (T,)
        first = torch.where(begins, columns, 0).cummax(dim=1).values  # (B, T)
        positions = columns - first
        return cls(positions, positions, columns, documents=first)

    def visible(self, *, causal: bool, window: int | None) -> Tensor:
        """Return True where a query may attend to a key, (B or 1, 1, T, S).

        Every query sees itself, even padding, so no row of the softmax is empty. A window is the
        number of tokens that a query sees, itself included.
        """
        columns = torch.arange(self.key_positions.shape[-1], device=self.key_positions.device)
        own = _with_batch(self.query_columns)[:, :, None]  # (B or 1, T, 1)
        visible = columns <= own if causal else torch.ones_like(columns <= own)  # (B or 1, T, S)
        if self.is_token is not None:
            visible = visible & self.is_token[:, None, :]  # (B, T, S)
        if self.documents is not None:
            visible = visible & (self.documents[:, :, None] == self.documents[:, None, :])
        if window:
            visible = visible & (self._distances() < window)
        return (visible | (columns == own))[:, None]

    def alibi_bias(self, slopes: Tensor) -> Tensor:
        """Return ALiBi's bias for the scores, (B or 1, H, T, S), which decreases with distance."""
        return -slopes[:, None, None] * self._distances().abs()[:, None]

    def _distances(self) -> Tensor:
        """Return how many positions each key is before each query, (B or 1, T, S)."""
        queries, keys = _with_batch(self.query_positions), _with_batch(self.key_positions)
        return queries[:, :, None] - keys[:, None, :]


def _with_batch(positions: Tensor) -> Tensor:
    return positions if positions.dim() == 2 else positions[None]


def token_positions(is_token: Tensor) -> Tensor:
    """Return positions (B, T) that count only tokens, with padding on either side."""
    return (is_token.cumsum(dim=1) - 1).clamp(min=0)


def additive_mask(visible: Tensor, like: Tensor) -> Tensor:
    """Return 0 for visible keys and -inf for hidden ones, with the dtype of ``like``."""
    return like.new_zeros(()).masked_fill(~visible, -torch.inf)
