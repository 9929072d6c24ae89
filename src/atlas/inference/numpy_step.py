"""One new token of each of some texts through a decoder, for CPUs.

The products of one token are so small that what PyTorch does around each operation takes most of
the time. NumPy does less, and here it has few operations to do: weights that read the same input
stand side by side, the scale of the scores is in the weights of the query, and keys and values go
straight into the model's own cache. Several times as fast (bench/generate.py), with logits equal to
the sixth digit.

Legend: N texts, C channels, F feed-forward channels, H query heads, K key heads, D head size,
S tokens so far, V vocabulary.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import fields
from typing import NamedTuple

import numpy as np
import torch
from threadpoolctl import ThreadpoolController

from atlas.inference.numpy_parts import RESIDUALS, Linear, make_norm, rms_norm
from atlas.model.attention import KVCache, LayerCache
from atlas.model.decoder import Decoder
from atlas.reference.block import GATED
from atlas.reference.layers import ACTIVATIONS, Array, Parameters, part
from atlas.reference.options import Options
from atlas.reference.positions import alibi_slopes, rope_rotation, sinusoidal_table


def suits(model: Decoder) -> bool:
    """Whether the weights are on the CPU, in float32, and not shared out among processes."""
    return all(
        type(each.data) is torch.Tensor and each.is_cpu and each.dtype == torch.float32
        for each in model.parameters()
    )


@functools.cache
def give_numpy_one_thread() -> None:
    """Leaves the cores to PyTorch: two crowds of threads wait for each other, up to 60 times."""
    ThreadpoolController().select(internal_api="openblas").limit(limits=1)


class Now(NamedTuple):
    """What the blocks share in one step.

    Attributes:
        rows: of the cache, N of them.
        span: the same as a slice where they follow each other, or are one row.
        positions: of the new tokens, N of them.
        end: S.
        rotation: cosine and sine of RoPE, (N, 1, 2, D/2) each.
        bias: added to the scores, (N, 1 or H, S); None where each text sees all.
    """

    rows: list[int]
    span: list[int] | slice
    positions: list[int]
    end: int
    rotation: tuple[Array, Array] | None
    bias: Array | None


class NumPyStep:
    """Reads a new token into each of some rows of a cache.

    It has a copy of the weights as they were when it was made.
    """

    def __init__(self, model: Decoder, cache: KVCache) -> None:
        give_numpy_one_thread()
        values = model.config.model_dump()
        self.options = options = Options(
            **{each.name: values[each.name] for each in fields(Options)}
        )
        self.cache = cache
        weights = {name: each.detach().numpy() for name, each in model.named_parameters()}
        self.embedding = weights["embedding.weight"]
        self.blocks = [
            StepBlock(part(weights, f"blocks.{number}"), options, layer)
            for number, layer in enumerate(cache.layers)
        ]
        self.norm = make_norm(part(weights, "norm"), options)
        self.head = Linear(part(weights, "embedding" if options.tied_head else "head"))
        self.slopes = alibi_slopes(options.n_head).astype(np.float32)
        self.table: Array | None = None  # (T, C)
        self.rotation: tuple[Array, Array] | None = None  # (T, 2, D/2) each
        match options.positions:
            case "learned":
                self.table = weights["positions.weight"]
            case "sinusoidal":
                table = sinusoidal_table(options.context_length, options.d_model)
                self.table = table.astype(np.float32)
            case "rope":
                self.rotation = for_both_halves(options)

    def __call__(self, rows: Sequence[int], ids: Sequence[int]) -> Array:
        """Logits (N, V) after a new id in each of some rows."""
        positions = [self.cache.lengths[row] for row in rows]
        x = self._stream(list(rows), positions, ids)
        for row in rows:
            self.cache.lengths[row] += 1
        return self.head(self.norm(x))

    def begin(self, row: int, ids: Sequence[int]) -> Array:
        """Logits (1, V) after a short text in place of what a row had.

        Its tokens are as many texts that stand in one row, each seeing what is before it.
        """
        x = self._stream([row] * len(ids), list(range(len(ids))), ids)
        self.cache.lengths[row] = len(ids)
        return self.head(self.norm(x[-1:]))

    def _stream(self, rows: list[int], positions: list[int], ids: Sequence[int]) -> Array:
        """What the blocks make of ids at positions of rows, (N, C)."""
        now = self._now(rows, positions)
        x: Array = self.embedding[list(ids)]  # (N, C)
        if self.table is not None:
            x = x + self.table[positions]
        for block in self.blocks:
            x = block(x, now)
        return x

    def _now(self, rows: list[int], positions: list[int]) -> Now:
        rotation = None
        if self.rotation is not None:
            cosine, sine = self.rotation
            where = positions if len(rows) > 1 else slice(positions[0], positions[0] + 1)
            rotation = cosine[where, None], sine[where, None]
        return Now(
            rows=rows,
            span=_span(rows),
            positions=positions,
            end=max(positions) + 1,
            rotation=rotation,
            bias=self._bias(positions),
        )

    def _bias(self, positions: list[int]) -> Array | None:
        options = self.options
        end, alibi = max(positions) + 1, options.positions == "alibi"
        all_see_all = min(positions) == end - 1 and not (options.window and options.window < end)
        if all_see_all and not alibi:
            return None
        distance = np.array(positions)[:, None, None] - np.arange(end)  # (N, 1, S)
        hidden = distance < 0
        if options.window:
            hidden |= distance >= options.window
        seen = -self.slopes[:, None] * distance if alibi else 0  # (N, H, S)
        return np.where(hidden, -np.inf, seen).astype(np.float32)


class StepBlock:
    """A block, and what it remembers."""

    def __init__(self, parameters: Parameters, options: Options, cache: LayerCache) -> None:
        self.options = options
        self.residual = RESIDUALS[options.norm_position]
        self.keys, self.values = cache.keys.numpy(), cache.values.numpy()  # (B, K, T, D) each
        attention = part(parameters, "attention")
        projections = {name: part(attention, name) for name in ("query", "key", "value")}
        norms = {name: part(attention, f"{name}_norm") for name in ("query", "key")}
        # Scores are divided by sqrt(D), so what makes the queries is, once.
        scaled = projections if options.qk_norm is None else norms
        root = math.sqrt(options.d_model // options.n_head)
        scaled["query"] = {name: each / root for name, each in scaled["query"].items()}
        self.projection = Linear(*projections.values())
        self.head_norms = norms
        self.output = Linear(part(attention, "output"))
        feed_forward = part(parameters, "feed_forward")
        inward = ("gate", "up") if options.feed_forward in GATED else ("up",)
        self.inward = Linear(*(part(feed_forward, name) for name in inward))
        self.down = Linear(part(feed_forward, "down"))
        self.activation, _ = ACTIVATIONS[GATED.get(options.feed_forward, options.feed_forward)]
        self.attention_norm = make_norm(part(parameters, "attention_norm"), options)
        self.feed_forward_norm = make_norm(part(parameters, "feed_forward_norm"), options)

    def __call__(self, x: Array, now: Now) -> Array:
        """(N, C) to (N, C)."""
        x = self.residual(x, self.attention_norm, lambda x: self.attention(x, now))
        return self.residual(x, self.feed_forward_norm, self.feed_forward)

    def attention(self, x: Array, now: Now) -> Array:
        """(N, C) to (N, C)."""
        n, heads = len(x), self.options.n_head
        queries, value = self._projected(x)  # (N, H + K, 2, D/2), (N, K, D)
        if now.rotation is not None:
            cosine, sine = now.rotation
            queries = queries * cosine + queries[:, :, ::-1] * sine
        turned = queries.reshape(n, -1, value.shape[2])  # (N, H + K, D)
        if n == 1:  # as below, in a tenth of the time
            self.keys[now.rows[0], :, now.positions[0]] = turned[0, heads:]
            self.values[now.rows[0], :, now.positions[0]] = value[0]
        else:
            self.keys[now.rows, :, now.positions] = turned[:, heads:]
            self.values[now.rows, :, now.positions] = value
        keys = self.keys[now.span, :, : now.end]  # (N, K, S, D)
        query = turned[:, :heads].reshape(n, keys.shape[1], -1, keys.shape[3])  # (N, K, H/K, D)
        scores = query @ keys.swapaxes(-1, -2)  # (N, K, H/K, S)
        if now.bias is not None:
            scores = (scores.reshape(n, heads, -1) + now.bias).reshape(scores.shape)
        scores -= np.maximum.reduce(scores, axis=-1, keepdims=True)
        shares = np.exp(scores, out=scores)
        mixed = shares @ self.values[now.span, :, : now.end]  # (N, K, H/K, D)
        mixed /= np.add.reduce(shares, axis=-1, keepdims=True)
        return self.output(mixed.reshape(n, -1))

    def feed_forward(self, x: Array) -> Array:
        """(N, C) to (N, C)."""
        inner = self.inward(x)  # (N, F) or, gated, (N, 2F)
        width = self.options.d_ff
        active, _ = self.activation(inner[:, :width])
        if inner.shape[1] > width:
            active *= inner[:, width:]
        return self.down(active)

    def _projected(self, x: Array) -> tuple[Array, Array]:
        """Queries and keys (N, H + K, 2, D/2), or of D odd (N, H + K, 1, D), values (N, K, D)."""
        options = self.options
        n, size = len(x), options.d_model // options.n_head
        projected = self.projection(x)  # (N, (H + 2K) * D)
        both = (options.n_head + options.n_kv_head) * size
        value = projected[:, both:].reshape(n, -1, size)
        halves = (2, size // 2) if size % 2 == 0 else (1, size)
        if options.qk_norm is None:
            return projected[:, :both].reshape(n, -1, *halves), value
        width = options.n_head * size
        parts = [projected[:, :width], projected[:, width:both]]
        if options.qk_norm == "head":
            parts = [each.reshape(n, -1, size) for each in parts]
        normed = [
            rms_norm(each, norm["weight"], options.norm_eps)
            for each, norm in zip(parts, self.head_norms.values(), strict=True)
        ]
        return np.concatenate([each.reshape(n, -1, *halves) for each in normed], axis=1), value


def _span(rows: list[int]) -> list[int] | slice:
    first = rows[0]
    if len(rows) == 1 or rows == [first] * len(rows):
        return slice(first, first + 1)
    following = slice(first, first + len(rows))
    return following if rows == list(range(following.start, following.stop)) else rows


def for_both_halves(options: Options) -> tuple[Array, Array]:
    """Cosine and sine of RoPE for each half of a head, (T, 2, D/2) each.

    The sine of the first half is negative, so that a turn is
    ``x * cosine + swapped * sine``, where ``swapped`` has the other half of x.
    """
    length, rope = options.context_length, (options.rope_theta, options.rope_scaling)
    turn = rope_rotation(np.arange(length), options.head_size, *rope, np.float32)
    cosine, sine = (each[0] for each in turn)  # (T, D/2) each
    return np.stack((cosine, cosine), axis=1), np.stack((-sine, sine), axis=1)
