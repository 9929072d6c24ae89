"""Perplexity and KL divergence in llama.cpp, compared with PyTorch."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from atlas.errors import AtlasError
from atlas.export.check import runtimes
from atlas.export.check.agreement import Quality, check_perplexity, measure_quality
from atlas.export.check.runtimes import Runtime, log_softmax, measure
from atlas.export.gguf.writer import write_gguf
from atlas.model.loss import mean_loss
from atlas.model.weights import save_weights
from atlas.params.runtime_support import architecture_of
from atlas.tokens.shards import TokenSplit
from atlas.tokens.windows import NO_TARGET, EvaluationWindows
from tests.export.models import SHAPES, bundle_of, store
from tests.small import text, write_tokens


@pytest.fixture(params=["packed", "padded"])
def batches(request, tmp_path, tokenizer):
    ids = [tokenizer.encode(text(seed, sentences=6)) for seed in range(700, 704)]
    folder = write_tokens(
        tmp_path / "tokens", {"val": [ids]}, tokenizer.vocab_size, windows=request.param
    )
    windows = EvaluationWindows(TokenSplit(folder, "val"), 96, 2)
    return list(windows.all())


def write(folder, model, tokenizer, name):
    save_weights(model, folder / "model/model.safetensors")
    architecture = architecture_of(model.config.model_dump())
    write_gguf(folder / name, bundle_of(folder / "model", tokenizer), architecture, "f32")
    return folder / name


@pytest.mark.slow
@torch.no_grad()
def test_two_models_are_as_far_apart_as_pytorch_says(tmp_path, tokenizer, batches):
    model = store(tmp_path / "model", SHAPES["llama"], tokenizer)
    exact = write(tmp_path, model, tokenizer, "exact.gguf")
    before = [F.log_softmax(model(torch.from_numpy(batch.inputs)), -1) for batch in batches]
    alone = measure_quality(exact, exact, batches)
    assert alone.perplexity == pytest.approx(math.exp(mean_loss(model, batches)), rel=1e-5)
    assert (alone.kl_divergence, alone.top_1_agreement) == (0, 1)

    model.blocks[0].feed_forward.up.weight.mul_(1.3)
    other = measure_quality(write(tmp_path, model, tokenizer, "other.gguf"), exact, batches)
    after = [F.log_softmax(model(torch.from_numpy(batch.inputs)), -1) for batch in batches]
    divergence = same = tokens = 0
    for p, q, batch in zip(before, after, batches, strict=True):
        there = torch.from_numpy(batch.targets != NO_TARGET)
        divergence += (p.exp() * (p - q)).sum(-1)[there].sum().item()
        same += (p.argmax(-1) == q.argmax(-1))[there].sum().item()
        tokens += int(there.sum())
    assert other.perplexity == pytest.approx(math.exp(mean_loss(model, batches)), rel=1e-5)
    assert other.kl_divergence == pytest.approx(divergence / tokens, rel=1e-3)
    assert other.kl_divergence > 1e-3
    assert other.top_1_agreement == pytest.approx(same / tokens, abs=1.5 / tokens)
    assert other.top_1_agreement < 1


def test_a_long_window_is_measured_in_steps(monkeypatch):
    generator = np.random.default_rng(0)
    table, other = generator.normal(size=(2, 100, 7)).astype(np.float32)
    inputs = np.arange(100).reshape(2, 50)
    targets = generator.integers(-1, 7, (2, 50))
    targets[1, 40:] = NO_TARGET
    steps = []

    def runtime(logits):
        def read(ids, position):
            steps.append((position, len(ids)))
            return logits[ids]

        return Runtime(read)

    whole = measure(runtime(table), runtime(other), inputs, targets)
    assert set(steps) == {(0, 50)}
    monkeypatch.setattr(runtimes, "STEP", 16)
    steps.clear()
    assert measure(runtime(table), runtime(other), inputs, targets) == pytest.approx(whole)
    assert set(steps) == {(0, 16), (16, 16), (32, 16), (48, 2)}


def test_log_probabilities_of_large_logits_are_pytorch_s():
    logits = np.array([[1000.0, 999.0, -1000.0], [0.0, 0.0, 0.0]], np.float32)
    expected = F.log_softmax(torch.from_numpy(logits).double(), -1).numpy()
    assert np.allclose(log_softmax(logits), expected, atol=1e-12)


@pytest.mark.parametrize("perplexity", [20.03, 19.97, math.nan])
def test_another_perplexity_stops_the_export(tmp_path, perplexity):
    quality = Quality(perplexity, 0.0, 1.0, {})
    with pytest.raises(AtlasError, match=r"m\.gguf: its perplexity is .* in llama\.cpp .* not exp"):
        check_perplexity(tmp_path / "m.gguf", quality, 20.0)
    check_perplexity(tmp_path / "m.gguf", Quality(20.01, 0.0, 1.0, {}), 20.0)
