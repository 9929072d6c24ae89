"""Loss, accuracy and perplexity of a model over batches."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from atlas.model.language_model import LanguageModel

Arrays = Sequence[Any]  # a batch in NumPy: inputs (B, T), targets (B, T), and what else it has

MAX_LOSS = 700.0  # nats; the perplexity of a larger loss overflows a float
MANY_LOGITS = 1 << 23  # of a batch; more than these are never stored together
CHUNK = 1 << 24  # logits that are stored together, 64 MB in float32


class Tally(NamedTuple):
    """Sums over windows, which add up over batches and processes.

    An answer is right if all its tokens are. In plain text, each token is an answer.
    """

    loss: float  # sum of cross-entropies, nats
    tokens: float  # number of targets
    right: float  # number of right answers
    answers: float

    @property
    def mean(self) -> float:
        """Mean cross-entropy, nats per token."""
        return self.loss / self.tokens

    @property
    def accuracy(self) -> float:
        """Fraction of correct answers."""
        return self.right / self.answers


def perplexity(loss: float) -> float:
    """Perplexity of a loss in nats per token, capped where it would overflow."""
    return math.exp(min(loss, MAX_LOSS))


def cross_entropy_sum(logits: Tensor, targets: Tensor) -> Tensor:
    """Sum of cross-entropies (nats) of logits (B, T, V) at targets (B, T), ignoring -100."""
    at_least_float32 = torch.promote_types(logits.dtype, torch.float32)
    flat = logits.flatten(0, 1).to(at_least_float32)  # (B * T, V)
    return F.cross_entropy(flat, targets.flatten(), reduction="sum")


def head_loss(hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
    """Sum of cross-entropies (nats) of hidden states (B, T, C) and a head (V, C), ignoring -100.

    Up to ``MANY_LOGITS`` logits are stored as they are. More are computed in chunks of rows, each
    with its gradients at once, so that only one chunk is ever stored (Liger Kernel,
    arXiv:2410.10989; compare Cut Cross-Entropy, arXiv:2411.09009). The shapes alone decide.
    """
    if targets.numel() * len(head) <= MANY_LOGITS:
        return cross_entropy_sum(F.linear(hidden, head), targets)
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        hidden = hidden.to(torch.get_autocast_dtype(device))
    loss: Tensor
    loss, _, _ = _chunked_loss(
        hidden.flatten(0, 1),
        head,
        targets.flatten(),
        max(1, CHUNK // len(head)),
        head.requires_grad,
    )
    return loss


@torch.library.custom_op("atlas::chunked_loss", mutates_args=())
def _chunked_loss(
    hidden: Tensor, head: Tensor, targets: Tensor, rows: int, head_learns: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss and gradients for hidden states (N, C) and a head (V, C), at most ``rows`` at a time.

    To torch.compile it is one operation. Matrix products have the dtype of ``hidden``; softmax,
    loss and gradients are at least float32. Rows without a target are left out.
    """
    at_least_float32 = torch.promote_types(hidden.dtype, torch.float32)
    weight = head.to(hidden.dtype)
    loss = hidden.new_zeros((), dtype=at_least_float32)
    hidden_gradient = torch.zeros_like(hidden, dtype=at_least_float32)
    head_gradient = torch.empty_like(head) if head_learns else head.new_empty(0)
    predicting = (targets >= 0).nonzero().squeeze(1)  # (M,)
    chunks = max(1, math.ceil(len(predicting) / rows))  # as equal as possible: a short one is slow
    for number, chosen in enumerate(predicting.tensor_split(chunks)):  # (R,)
        x, y = hidden[chosen], targets[chosen]
        log_p = (x @ weight.t()).to(at_least_float32).log_softmax(dim=-1)  # (R, V)
        loss += F.nll_loss(log_p, y, reduction="sum")
        error = log_p.exp_()  # of the probabilities: the gradient of the logits
        error[torch.arange(len(y), device=y.device), y] -= 1
        error = error.to(hidden.dtype)
        hidden_gradient[chosen] = (error @ weight).to(at_least_float32)
        if head_learns and head.dtype == hidden.dtype:
            head_gradient.addmm_(error.t(), x, beta=float(number > 0))
        elif head_learns:
            added = error.t() @ x
            head_gradient = head_gradient.add_(added) if number else added.to(head.dtype)
    return loss, hidden_gradient, head_gradient


@_chunked_loss.register_fake
def _(
    hidden: Tensor, head: Tensor, _targets: Tensor, _rows: int, head_learns: bool
) -> tuple[Tensor, Tensor, Tensor]:
    at_least_float32 = torch.promote_types(hidden.dtype, torch.float32)
    return (
        hidden.new_empty((), dtype=at_least_float32),
        torch.empty_like(hidden, dtype=at_least_float32),
        torch.empty_like(head) if head_learns else head.new_empty(0),
    )


def _save_gradients(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    hidden, _, _, _, ctx.head_learns = inputs
    _, *gradients = output
    ctx.hidden_dtype = hidden.dtype
    ctx.set_materialize_grads(False)  # or zeros the size of the head are made for what has none
    ctx.save_for_backward(*gradients)


def _scale_gradients(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    hidden_gradient, head_gradient = ctx.saved_tensors
    hidden = (hidden_gradient * grad).to(ctx.hidden_dtype)
    return hidden, head_gradient * grad if ctx.head_learns else None, None, None, None


_chunked_loss.register_autograd(_scale_gradients, setup_context=_save_gradients)


@torch.no_grad()
def tally(model: LanguageModel, batches: Iterable[Arrays]) -> Tally:
    """Measure a model over batches.

    The mode of the model is restored; no random numbers are drawn.
    """
    device, questions = model.device, model.config.separator is not None
    loss, tokens, right, answers = 0.0, 0, 0, 0
    with model.evaluating():
        for batch in batches:
            inputs, targets = (torch.from_numpy(part).to(device) for part in batch[:2])
            logits = model(inputs)
            loss += cross_entropy_sum(logits, targets).item()
            asked = targets >= 0
            tokens += int(asked.sum())
            found = asked & (logits.argmax(dim=-1) == targets)
            if questions:  # one per window
                found, asked = (found == asked).all(dim=1) & asked.any(dim=1), asked.any(dim=1)
            right += int(found.sum())
            answers += int(asked.sum())
    return Tally(loss, tokens, right, answers)


def mean_loss(model: LanguageModel, batches: Iterable[Arrays]) -> float:
    """Mean cross-entropy over batches, nats per token."""
    return tally(model, batches).mean
