"""The verdict of the check, without a runtime."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from atlas.errors import AtlasError
from atlas.export.check.agreement import (
    Agreement,
    Expected,
    Quality,
    check_agreement,
    check_perplexity,
    compare_continuations,
)
from atlas.model.transformer import Decoder
from atlas.model.weights import initialize
from tests.small import small_config

GOOD = Agreement(
    texts=10,
    tokens=100,
    token_mismatches=0,
    end_mismatches=0,
    logit_difference=1e-5,
    greedy_tokens=60,
    greedy_mismatches=0,
    greedy_ties=0,
)


def test_agreement_passes():
    check_agreement(Path("m.gguf"), GOOD, 1e-4)


@pytest.mark.parametrize(
    "change",
    [
        {"token_mismatches": 1},
        {"end_mismatches": 1},
        {"logit_difference": 1.1e-4},
        {"logit_difference": float("nan")},
        {"greedy_mismatches": 1},
    ],
)
def test_each_disagreement_stops(change):
    with pytest.raises(AtlasError, match=r"m\.gguf: llama\.cpp disagrees with PyTorch"):
        check_agreement(Path("m.gguf"), replace(GOOD, **change), 1e-4)


def test_only_a_tie_excuses_another_token():
    model = Decoder(small_config()).eval()
    initialize(model, 0)
    prompt = [5, 6, 7]
    logits = model(torch.tensor([prompt]))[0, -1].detach()
    best, second, *_, worst = logits.argsort(descending=True).tolist()
    gap = float(logits[best] - logits[second])
    assert compare_continuations(model, prompt, [best], [best], 1e-9) == "same"
    assert compare_continuations(model, prompt, [best], [second], gap) == "tie"
    assert compare_continuations(model, prompt, [best], [second], gap / 4) == "mismatch"
    assert compare_continuations(model, prompt, [best], [worst], gap) == "mismatch"


@pytest.mark.parametrize(("deviation", "scale"), [(0.1, 1), (1, 1), (4.2, 4.2), (10, 10)])
def test_tolerances_follow_the_deviation_of_the_logits(deviation, scale):
    logits = np.random.default_rng(0).normal(3, deviation, (500, 400))
    sequences = [([5], logits), ([6, 7], logits)]
    expected = Expected([], sequences, frozenset({1}), False, [], 0, 8)
    assert expected.logit_deviation == pytest.approx(deviation, rel=0.01)
    assert expected.error_scale == pytest.approx(scale, rel=0.01)
    quality = Quality(20.03, 0, 1, {})  # 0.15 % more than PyTorch's
    if scale > 1.5:
        check_perplexity(Path("m.gguf"), quality, 20.0, scale)
    else:
        with pytest.raises(AtlasError, match="its perplexity is"):
            check_perplexity(Path("m.gguf"), quality, 20.0, scale)
