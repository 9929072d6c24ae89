"""Rotary positions: queries and keys are turned by an angle that grows with their position."""

import torch
from torch import Tensor, nn


class RotaryPositions(nn.Module):
    """RoPE (Su et al. 2021, arXiv:2104.09864) in the half-split form of Llama in transformers.

    Channel ``i`` of the first half of a head and channel ``i`` of the second are the two
    coordinates of a point; at position ``t`` it is turned by ``t * theta^(-2i/D)``.
    """

    cosine: Tensor  # (T, D/2)
    sine: Tensor  # (T, D/2)

    def __init__(self, head_size: int, context_length: int, theta: float) -> None:
        super().__init__()
        exponents = torch.arange(0, head_size, 2, dtype=torch.float64) / head_size
        positions = torch.arange(context_length, dtype=torch.float64)
        angles = torch.outer(positions, theta**-exponents)  # (T, D/2)
        self.register_buffer("cosine", angles.cos().float(), persistent=False)
        self.register_buffer("sine", angles.sin().float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Turns queries or keys at positions 0, 1, ... of ``x`` (B, H, T, D)."""
        first, second = x.chunk(2, dim=-1)  # (B, H, T, D/2) each
        length = x.shape[-2]
        cosine, sine = self.cosine[:length], self.sine[:length]
        return torch.cat(
            (first * cosine - second * sine, second * cosine + first * sine), dim=-1
        )  # (B, H, T, D)
