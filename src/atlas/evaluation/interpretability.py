"""Interpretability: attention maps, roles of heads, and the Fourier spectrum of numbers.

A model that has grokked addition modulo p places its numbers on a few circles: in the Fourier
basis over the numbers, a handful of frequencies have nearly all the power (arXiv:2301.05217). A
model that has memorized its training pairs has no such peaks. A product is a sum of logarithms, so
for products the numbers are ordered by discrete logarithm.

A head's score for a kind of key, from 0 to 1, is the attention weight that a query gives to keys
of that kind, averaged over the queries that have any.

Legend: B batch, H heads, T tokens, L layers, Q questions, N digits. Attention weights are
(B, H, T, T), queries down and keys across; ids are (B, T).
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from atlas.cleaning.documents import Split
from atlas.corpora.arithmetic import MODULAR_OPERATIONS
from atlas.evaluation.evaluator import Evaluator
from atlas.evaluation.plots import (
    MAX_HEADS,
    MAX_LAYERS,
    plot_attention,
    plot_dynamics,
    plot_heads,
    plot_spectrum,
)
from atlas.evaluation.questions import is_arithmetic
from atlas.evaluation.samples import choose_prompts
from atlas.evaluation.scores import Metrics
from atlas.evaluation.tables import write_table
from atlas.inference.batch import prepare_prompt
from atlas.model.transformer import Decoder, Transformer
from atlas.tokens.tokenizer import Tokenizer, visible
from atlas.tokens.windows import EvaluationWindows

HEAD_WINDOWS = 16  # windows of val that head scores are measured on
MAX_MAPS = 9  # prompts with an attention map
MAX_MAP_TOKENS = 48
PRODUCTS = ("multiply", "divide")
MIN_NUMBERS = 5  # for a spectrum
PEAK_FREQUENCIES = 10  # strongest frequencies, whose share of the power is a metric
MAX_WINDOW = 256  # tokens; attention weights grow with its square
REPEATED_TOKENS = 24  # length of the random sequence that is repeated
REPEATED_ROWS = 8
ROLE_THRESHOLD = 0.4  # a head with a score this high is named after its kind
# Operations that ask for the digit at a position.
POSITIONAL: Mapping[str, int] = {"First": 0, "Second": 1, "Last": -1}
# In real text a token is seldom followed by the same token again, so repetition needs its own text.
TEXT_KINDS = ("previous", "first", "itself")
REPETITION_KINDS = ("same", "induction")
KEY_KINDS = TEXT_KINDS + REPETITION_KINDS

Reals = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Question = tuple[str, list[int]]  # operation and ids


def inspect_model(
    evaluator: Evaluator, validations: pd.DataFrame, tables: Path, plots: Path
) -> Metrics:
    """Write the tables and plots that apply to the model; ``validations`` is metrics/val.csv."""
    if (validations["step"] > 0).any():
        plot_dynamics(validations, plots / "dynamics.png")
    metrics: Metrics = {}
    if isinstance(evaluator.model, Decoder):
        _plot_attention_maps(evaluator, evaluator.model, plots)
        _write_heads(evaluator, evaluator.model, tables, plots)
        metrics |= _write_digits(evaluator, evaluator.model, tables)
    if isinstance(evaluator.model, Transformer):
        metrics |= _write_spectrum(evaluator, evaluator.model, tables, plots)
    return metrics


def _plot_attention_maps(evaluator: Evaluator, model: Decoder, plots: Path) -> None:
    texts = evaluator.params.attention_prompts or evaluator.params.prompts
    if texts or not evaluator.has_questions:
        chosen = choose_prompts(texts, evaluator.tokenizer, evaluator.splits["val"])
        prompts = [prepare_prompt(model.config, ids) for ids in chosen]
    else:  # the first question of each source
        first = dict(reversed(_questions(evaluator, "val")))
        prompts = [ids for _, ids in sorted(first.items())]
    max_tokens = min(MAX_MAP_TOKENS, model.config.sequence_length)
    layers, heads = model.config.n_layer, model.config.n_head
    if layers > MAX_LAYERS or heads > MAX_HEADS:
        drawn = f"{min(layers, MAX_LAYERS)} of {layers} layers, {min(heads, MAX_HEADS)} of {heads}"
        print(f"attention maps show {drawn} heads")
    for number, prompt in enumerate(prompts[:MAX_MAPS], start=1):
        ids = prompt[:max_tokens]
        if len(ids) < 2:  # a single token attends to itself
            continue
        weights = [each[0].numpy() for each in attention_weights(model, torch.tensor([ids]))]
        labels = [visible(evaluator.tokenizer.piece(token)) for token in ids]
        plot_attention(weights, labels, plots / f"attention-{number}.png")


def _questions(evaluator: Evaluator, split: Split) -> list[Question]:
    """Source and ids of each question of a split, as the model reads them."""
    config, questions = evaluator.model.config, evaluator.questions(split)
    prompts = [prepare_prompt(config, ids) for ids in questions.prompts]
    return list(zip(evaluator.sources(split), prompts, strict=True))


def _write_heads(evaluator: Evaluator, model: Decoder, tables: Path, plots: Path) -> None:
    windows = EvaluationWindows(evaluator.splits["val"], model.config.sequence_length, 1)
    ids = [torch.from_numpy(batch.inputs[batch.mask]) for batch in windows.spread(HEAD_WINDOWS)]
    table = head_table(model, ids, evaluator.params.seed)
    write_table(table, tables, "heads")
    plot_heads(table, KEY_KINDS, plots / "heads.png")


def _write_digits(evaluator: Evaluator, model: Decoder, tables: Path) -> Metrics:
    separator, sources = model.config.separator, evaluator.sources("val")
    if not is_arithmetic(evaluator.tokenizer, separator, sources):
        return {}
    selection, test = (_questions(evaluator, split) for split in ("val", evaluator.table_split))
    table = digit_table(model, selection, test)
    if table.empty:  # no operation asks for a position
        return {}
    write_table(table, tables, "digits")
    return {
        f"attention_{operation.lower()}_found": float(found)
        for operation, found in zip(table["operation"], table["found"], strict=True)
    }


def _write_spectrum(evaluator: Evaluator, model: Transformer, tables: Path, plots: Path) -> Metrics:
    sources = evaluator.sources("val")
    if not (evaluator.has_questions and is_modular(sources)):
        return {}
    texts = (document.text for document in evaluator.documents("val"))
    ids = number_ids(evaluator.tokenizer, texts)
    if not ids:
        return {}
    ordered = [ids[number] for number in circle_order(len(ids), sources[0])]
    table = spectrum(model.embedding.weight.detach().double().cpu().numpy()[ordered])
    write_table(table, tables, "spectrum")
    plot_spectrum(table, plots / "spectrum.png")
    return {"embedding_peak_share": peak_share(table)}


def key_masks(ids: Tensor) -> dict[str, Tensor]:
    """Mark the keys of each kind for every query, (B, T, T).

    - previous: the token before the query.
    - first: the first token, for each later query.
    - itself: the query, except the first.
    - same: earlier tokens equal to the query.
    - induction: tokens that followed an earlier copy of the query (arXiv:2209.11895).
    """
    b, t = ids.shape
    first, itself = torch.zeros(t, t), torch.eye(t)
    first[1:, 0] = 1
    itself[0] = 0
    same = (ids[:, :, None] == ids[:, None, :]).float().tril(-1)
    return {
        "previous": torch.ones(t, t).tril(-1).triu(-1).expand(b, -1, -1),
        "first": first.expand(b, -1, -1),
        "itself": itself.expand(b, -1, -1),
        "same": same,
        "induction": F.pad(same, (1, 0))[..., :-1].tril(-1),
    }


def head_scores(weights: Tensor, keys: Tensor) -> Tensor:
    """Mean weight that each head gives to marked keys, (H,), over queries that have any."""
    weight = (weights * keys[:, None]).sum(dim=(0, 2, 3))
    return weight / max(1, count_queries(keys))


def count_queries(keys: Tensor) -> int:
    """Count the queries that have a marked key."""
    return int(keys.any(dim=-1).sum())


@torch.no_grad()
def attention_weights(model: Decoder, ids: Tensor) -> list[Tensor]:
    """Run the model and return the weights of each layer, (B, H, T, T)."""
    weights: list[Tensor] = []
    with model.evaluating():
        model(ids.to(model.device), weights=weights)
    return [each.float().cpu() for each in weights]


def head_table(model: Decoder, windows: list[Tensor], seed: int) -> pd.DataFrame:
    """Score every head for every kind of key, on windows of real text, (T,) each.

    ``seed`` is for the random sequence that measures ``REPETITION_KINDS``.

    Returns:
        Columns layer, head (both from 1), one per kind, and role (the kind with the highest score,
        empty below ``ROLE_THRESHOLD``).
    """
    n_layer, n_head = model.config.n_layer, model.config.n_head
    sums = {kind: np.zeros((n_layer, n_head)) for kind in KEY_KINDS}
    queries = dict.fromkeys(KEY_KINDS, 0)
    random_ids = repeated_sequence(torch.cat(windows), model.config.sequence_length, seed)
    texts = [(ids[None, :MAX_WINDOW], TEXT_KINDS) for ids in windows]
    for ids, kinds in [*texts, (random_ids, REPETITION_KINDS)]:
        weights, masks = attention_weights(model, ids), key_masks(ids)
        for kind in kinds:
            keys = masks[kind]
            count = count_queries(keys)
            sums[kind] += count * np.stack([head_scores(each, keys).numpy() for each in weights])
            queries[kind] += count
    scores = {kind: sums[kind] / max(1, queries[kind]) for kind in KEY_KINDS}
    layers, heads = np.indices((n_layer, n_head)) + 1
    columns = {"layer": layers, "head": heads, **scores}
    table = pd.DataFrame({name: values.ravel() for name, values in columns.items()})
    values = table[list(KEY_KINDS)]
    table["role"] = values.idxmax(axis=1).where(values.max(axis=1) >= ROLE_THRESHOLD, "")
    return table


def repeated_sequence(known: Tensor, window: int, seed: int) -> Tensor:
    """Draw random sequences from the known tokens and repeat each once, (B, T)."""
    length = max(1, min(REPEATED_TOKENS, window // 2))
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.tensor(sorted(set(known.tolist())))
    drawn = torch.randint(len(tokens), (REPEATED_ROWS, length), generator=generator)
    repeated: Tensor = tokens[drawn].repeat(1, 2)
    return repeated


def digit_table(
    model: Decoder, selection: Sequence[Question], test: Sequence[Question]
) -> pd.DataFrame:
    """Measure how often a head attends to the digit that First, Second or Last asks for.

    The answer is predicted at the last token of the question, so that is the query. The questions
    of ``selection`` select the head of each operation, those of ``test`` measure it.

    Returns:
        Columns operation, layer and head (from 1), questions, weight (mean weight on the right
        digit), others (on all other digits together), found (share of the questions where no digit
        gets more), and flow (the same share for attention rollout through all layers and heads).
    """
    rows = []
    for operation, position in POSITIONAL.items():
        select_ids = [ids for name, ids in selection if name == operation]
        test_ids = [ids for name, ids in test if name == operation]
        if not (select_ids and test_ids):
            continue
        weights = _digit_attention(model, select_ids, position)["weight"].mean(axis=0)  # (L, H)
        layer, head = np.unravel_index(int(weights.argmax()), weights.shape)
        found = _digit_attention(model, test_ids, position)
        rows.append(
            {
                "operation": operation,
                "layer": int(layer) + 1,
                "head": int(head) + 1,
                "questions": len(test_ids),
                **{key: found[key][:, layer, head].mean() for key in ("weight", "others", "found")},
                "flow": found["flow"].mean(),
            }
        )
    return pd.DataFrame(rows)


def rollout(weights: Sequence[Reals]) -> Reals:
    """Attention rollout (arXiv:2005.00928): how much of each token reaches each other, (T, T).

    Heads count equally, and the residual connection carries half of each layer. ``weights`` are
    those of each layer, (H, T, T).
    """
    reached = np.eye(weights[0].shape[-1])
    for layer in weights:
        reached = (layer.mean(axis=0) + np.eye(len(reached))) / 2 @ reached
    return reached


def _digit_attention(
    model: Decoder, questions: Sequence[list[int]], position: int
) -> dict[str, npt.NDArray[Any]]:
    """Attention from the last token of each question to its digits.

    Returns:
        The weight on the digit at ``position`` and on all others together, (Q, L, H); found, True
        where no digit gets more, (Q, L, H); and flow, the same for rollout, (Q,).
    """
    parts = []
    for length in sorted({len(ids) for ids in questions}):  # equal lengths need no padding
        batch = torch.tensor([ids for ids in questions if len(ids) == length])
        weights = [each.numpy().astype(np.float64) for each in attention_weights(model, batch)]
        last = np.stack([_digits(each[:, :, -1]) for each in weights], axis=1)  # (Q, L, H, N)
        reached = np.stack(
            [_digits(rollout([each[row] for each in weights])[-1]) for row in range(len(batch))]
        )  # (Q, N)
        weight = last[..., position]
        parts.append(
            {
                "weight": weight,
                "others": last.sum(axis=-1) - weight,
                "found": _is_largest(last, position),
                "flow": _is_largest(reached, position),
            }
        )
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def _digits(row: Reals) -> Reals:
    """Keep the digits; drop the end-of-text token and the operation before them, and "=" after."""
    return row[..., 2:-1]


def _is_largest(weights: Reals, position: int) -> Bools:
    """True where the digit at ``position`` of the last axis has weight, and none has more."""
    weight = weights[..., position]
    largest: Bools = (weight == weights.max(axis=-1)) & (weight > 0)
    return largest


def is_modular(sources: Sequence[str]) -> bool:
    """Check that all documents are equations of one modular operation."""
    return len(set(sources)) == 1 and sources[0] in MODULAR_OPERATIONS


def number_ids(tokenizer: Tokenizer, texts: Iterable[str]) -> list[int]:
    """Ids of 0, 1 and so on up to the largest number in the texts.

    Empty if one of the numbers is not a single token, or if there are too few for a spectrum.
    """
    words = {word for text in texts for word in text.split()}
    largest = max((int(word) for word in words if word.isdecimal()), default=0)
    encoded = [tokenizer.encode(str(number)) for number in range(largest + 1)]
    single = all(len(ids) == 1 and ids[0] != tokenizer.unk for ids in encoded)
    return [ids[0] for ids in encoded] if single and len(encoded) >= MIN_NUMBERS else []


def circle_order(numbers: int, operation: str) -> list[int]:
    """Order numbers along the circle of an operation: by value, or by discrete logarithm.

    If the modulus is not prime, no generator yields all of 1 to p - 1, and products are ordered by
    value, too.
    """
    if operation in PRODUCTS:
        for generator in range(2, numbers):
            powers = [pow(generator, exponent, numbers) for exponent in range(numbers - 1)]
            if sorted(powers) == list(range(1, numbers)):
                return powers
    return list(range(numbers))


def spectrum(embedding: Reals) -> pd.DataFrame:
    """Compute the share of the power at each frequency from 1 on; the mean is left out.

    ``embedding`` (p, C) has the numbers in circle order. The columns of the table are frequency
    (periods over all numbers) and share.
    """
    waves = np.fft.rfft(embedding - embedding.mean(axis=0), axis=0)[1:]  # (p // 2, C)
    power = (np.abs(waves) ** 2).sum(axis=1)
    if len(embedding) % 2 == 0:
        power[:-1] *= 2  # except the highest, each frequency stands for a conjugate pair
    share = power / power.sum()
    return pd.DataFrame({"frequency": np.arange(1, len(share) + 1), "share": share})


def peak_share(table: pd.DataFrame) -> float:
    """Share of the power at the strongest frequencies of a spectrum."""
    return float(table["share"].nlargest(PEAK_FREQUENCIES).sum())
