"""The verdict of the check, without a runtime."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from atlas.errors import AtlasError
from atlas.export.check.agreement import Agreement, check_agreement, compare_continuations
from atlas.model.transformer import Decoder
from atlas.model.weights import initialize
from tests.small import small_config

GOOD = Agreement(
    texts=10,
    tokens=100,
    token_mismatches=0,
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
