"""AdamW with weight decay on matrices alone."""

import torch
from torch import nn

from atlas.params import TrainParams


def make_optimizer(model: nn.Module, train: TrainParams) -> torch.optim.AdamW:
    """AdamW (arXiv:1711.05101) over all parameters of a model.

    Matrices, embeddings among them, decay; biases and the scales of norms do not.
    """
    parameters = list(model.parameters())
    matrices = [p for p in parameters if p.dim() >= 2]
    vectors = [p for p in parameters if p.dim() < 2]
    if len(matrices) + len(vectors) != len(parameters):
        raise AssertionError("the parameter groups do not cover the model")
    return torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": train.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ],
        lr=train.lr,
        betas=(train.beta1, train.beta2),
        fused=True,
    )
