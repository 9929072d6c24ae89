"""nanoGPT's published recipes for tiny Shakespeare: model, optimizer and loop."""

import math
import time
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.model import Shape, transformers, wait

VAL_BATCH = 128  # windows


@dataclass(frozen=True)
class Recipe:
    """A published recipe (config/train_shakespeare_char.py, and the README for a CPU).

    Names and numbers are nanoGPT's. The optimizer is AdamW with a cosine schedule.

    Attributes:
        preset: our preset that competes with it.
        target: the val loss that nanoGPT reports.
    """

    preset: str
    target: float
    n_layer: int
    n_head: int
    n_embd: int
    context_length: int
    batch: int
    steps: int
    dropout: float
    lr: float = 1e-3
    min_lr_ratio: float = 1e-4
    warmup_steps: int = 100
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.99)
    clip: float = 1.0


RECIPES = {
    "cpu": Recipe("speedrun-cpu", 1.88, 4, 4, 128, 64, 12, 2000, 0.0),
    "cuda": Recipe("speedrun-gpu", 1.4697, 6, 6, 384, 256, 64, 5000, 0.2),
}


@dataclass
class LossCurve:
    """Loss over time.

    Attributes:
        seconds: spent in steps so far.
        losses: seconds and val loss (nats per character) of each validation.
    """

    seconds: float = 0.0
    losses: list[tuple[float, float]] = field(default_factory=list)

    def reached(self, target: float) -> float:
        """Return the seconds to the first validation at or below a loss, or infinity."""
        return next((seconds for seconds, loss in self.losses if loss <= target), math.inf)


class NanoGpt:
    """Model, optimizer and loop of a recipe."""

    def __init__(self, recipe: Recipe, train: str, val: str, device: torch.device) -> None:
        self.recipe, self.device, self.curve = recipe, device, LossCurve()
        characters = {
            character: number for number, character in enumerate(sorted(set(train + val)))
        }
        self.train, self.val = (
            torch.tensor([characters[character] for character in text]) for text in (train, val)
        )
        torch.manual_seed(1337)
        shape = Shape(
            recipe.n_embd,
            recipe.n_layer,
            recipe.n_head,
            recipe.context_length,
            recipe.batch,
            len(characters),
        )
        self.model = transformers(shape, "gpt2", recipe.dropout).to(device).train()
        matrices = [p for p in self.model.parameters() if p.dim() >= 2]
        vectors = [p for p in self.model.parameters() if p.dim() < 2]
        groups = [
            {"params": matrices, "weight_decay": recipe.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        # nanoGPT uses the fused kernel only on a GPU; here it also gets it on a CPU.
        self.optimizer = torch.optim.AdamW(groups, recipe.lr, betas=recipe.betas, fused=True)
        self.generator = torch.Generator().manual_seed(1337)

    def steps(self, first: int, last: int) -> None:
        """Run the steps from ``first`` up to ``last``."""
        started = time.perf_counter()
        for step in range(first, last):
            for group in self.optimizer.param_groups:
                group["lr"] = self._lr(step)
            ids, targets = self._batch()
            loss = self._loss(ids, targets)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
            self.optimizer.step()
            self.optimizer.zero_grad()
        wait(self.device)
        self.curve.seconds += time.perf_counter() - started

    @torch.no_grad()
    def validate(self) -> float:
        """Measure the val loss over the whole split."""
        self.model.eval()
        length = self.recipe.context_length
        whole = (len(self.val) - 1) // length * length
        ids, targets = self.val[:whole].view(-1, length), self.val[1 : whole + 1].view(-1, length)
        parts = [*zip(torch.split(ids, VAL_BATCH), torch.split(targets, VAL_BATCH), strict=True)]
        if whole < len(self.val) - 1:  # the last window is shorter
            parts.append((self.val[None, whole:-1], self.val[None, whole + 1 :]))
        total = 0.0
        for inputs, outputs in parts:
            loss = self._loss(inputs.to(self.device), outputs.to(self.device))
            total += loss.item() * outputs.numel()
        self.model.train()
        mean = total / (len(self.val) - 1)
        self.curve.losses.append((self.curve.seconds, mean))
        return mean

    def _loss(self, ids: Tensor, targets: Tensor) -> Tensor:
        with torch.autocast("cuda", torch.bfloat16, enabled=self.device.type == "cuda"):
            logits = self.model(ids)
        return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())

    def _batch(self) -> tuple[Tensor, Tensor]:
        length = self.recipe.context_length
        starts = torch.randint(
            len(self.train) - length, (self.recipe.batch,), generator=self.generator
        )
        rows = torch.stack([self.train[start : start + length + 1] for start in starts])
        rows = rows.to(self.device)
        return rows[:, :-1], rows[:, 1:]

    def _lr(self, step: int) -> float:
        recipe = self.recipe
        if step < recipe.warmup_steps:
            return recipe.lr * (step + 1) / (recipe.warmup_steps + 1)
        progress = (step - recipe.warmup_steps) / (recipe.steps - recipe.warmup_steps)
        cosine = 0.5 * (1 + math.cos(math.pi * progress))
        return recipe.min_lr_ratio + cosine * (recipe.lr - recipe.min_lr_ratio)
