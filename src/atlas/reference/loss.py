"""Cross-entropy: how surprised the model is by the right token, in nats.

    loss = mean over targets of -log softmax(logits)[target]
    dlogits = (softmax(logits) - one-hot of target) / number of targets

A target of -100 is ignored, as in PyTorch: neither its loss nor its gradient counts.
"""

import numpy as np

from atlas.reference.arrays import Array, Cache, Scalar, rows

IGNORED = -100


def cross_entropy_forward(logits: Array, targets: Array) -> tuple[Scalar, Cache]:
    """The mean over the targets (...) that are not ignored, of logits (..., V).

    Raises:
        ValueError: a target is no id, or all are ignored.
    """
    flat = targets.reshape(-1)  # (N,)
    (places,) = (flat != IGNORED).nonzero()  # (M,)
    wanted = flat[places]  # (M,)
    outside = wanted[(wanted < 0) | (wanted >= logits.shape[-1])]
    if outside.size:
        raise ValueError(f"target {outside[0]}: targets go from 0 to {logits.shape[-1] - 1}")
    if not places.size:
        raise ValueError("every target is ignored: there is no loss")
    picked = rows(logits)[places]  # (M, V)
    picked = picked - picked.max(-1, keepdims=True)  # keeps exp from overflowing
    log_shares = picked - np.log(np.exp(picked).sum(-1, keepdims=True))  # (M, V)
    loss: Scalar = -log_shares[np.arange(len(wanted)), wanted].mean()
    return loss, (log_shares, places, wanted, logits.shape)


def cross_entropy_backward(dout: Scalar | float, cache: Cache) -> Array:
    """The gradient of logits (..., V); ``dout`` is that of the loss, 1 if it is the end."""
    log_shares, places, wanted, shape = cache
    dpicked = np.exp(log_shares)  # (M, V)
    dpicked[np.arange(len(wanted)), wanted] -= 1
    dlogits = np.zeros((np.prod(shape[:-1], dtype=int), shape[-1]), log_shares.dtype)  # (N, V)
    dlogits[places] = dpicked * (dout / len(wanted))
    return dlogits.reshape(shape)
