import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas.inference.generate import CachedBackend, UncachedBackend, torch_backend
from atlas.model.weights import initialize, make_model
from tests.model.family import GRID, OPTIONS, T, decoder, ids_of
from tests.small import small_config

CLOSE = 1e-5  # for logits of about 1
KINDS = [CachedBackend, UncachedBackend]


def uncached(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids]))[0, -1].numpy()


def check(kind, model, starts, order):
    """Advance texts of different lengths in slots, a few at a time."""
    backend = kind(model, len(starts))
    texts = [ids_of(1, T, seed).tolist()[0] for seed in range(len(starts))]
    lengths = list(starts)
    prompts = {slot: text[: lengths[slot]] for slot, text in enumerate(texts)}
    for (slot, text), logits in zip(enumerate(texts), backend.prefill(prompts), strict=True):
        assert np.abs(logits - uncached(model, text[: lengths[slot]])).max() < CLOSE
    for growing in order:
        growing = [slot for slot in growing if lengths[slot] < T]
        if not growing:
            continue
        tokens = {slot: texts[slot][lengths[slot]] for slot in growing}
        rows = backend.step(tokens)
        for slot, logits in zip(growing, rows, strict=True):
            lengths[slot] += 1
            assert np.abs(logits - uncached(model, texts[slot][: lengths[slot]])).max() < CLOSE
    backend.prefill({0: texts[1][:3]})  # replaces the former text
    logits = backend.step({0: texts[1][3]})[0]
    assert np.abs(logits - uncached(model, texts[1][:4])).max() < CLOSE


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", GRID, ids=str)
def test_each_slot_has_the_logits_of_its_own_text(kind, options):
    order = [[0, 1, 2], [0], [2, 0], [1, 2], *[[0, 1, 2]] * T]
    check(kind, decoder(**options), (1, 5, 9), order)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    OPTIONS,
    st.lists(st.integers(1, T), min_size=2, max_size=4),
    st.lists(st.sets(st.integers(0, 3), min_size=1).map(sorted), max_size=6),
)
def test_cached_logits_equal_uncached_ones_over_all_options(options, starts, order):
    order = [[slot for slot in growing if slot < len(starts)] for growing in order]
    check(CachedBackend, decoder(**options), starts, order)


def test_decoders_have_a_cache():
    assert type(torch_backend(decoder(), 2)) is CachedBackend
    bigram = make_model(small_config(kind="bigram"))
    assert type(torch_backend(bigram, 2)) is UncachedBackend


WITHOUT_CACHE = [
    {"kind": "two_layer", "window": 4},
    {"kind": "encoder_decoder", "separator": 9},
    {"kind": "bigram"},
]


@pytest.mark.parametrize("options", [{}, *WITHOUT_CACHE], ids=str)
def test_scores_are_the_logits_of_every_token(options):
    model = make_model(small_config(**options)).eval()
    initialize(model, 3)
    backend = torch_backend(model, 2)
    texts = [[7, 8, 9, 4, 3], [5, 9, 6]]
    backend.prefill({0: [6, 9], 1: [9]})
    for slot, text in enumerate(texts):
        logits = backend.score(slot, text)
        assert logits.shape == (len(text), model.config.vocab_size)
        first = text.index(9) if options.get("kind") == "encoder_decoder" else 0
        assert np.isnan(logits[:first]).all()
        for end in range(first, len(text)):
            assert np.allclose(logits[end], uncached(model, text[: end + 1]), atol=CLOSE)
    rows = backend.step({1: 11, 0: 12})
    assert np.allclose(rows[0], uncached(model, [*texts[1], 11]), atol=CLOSE)
    assert np.allclose(rows[1], uncached(model, [*texts[0], 12]), atol=CLOSE)


@pytest.mark.parametrize("options", WITHOUT_CACHE, ids=str)
def test_models_without_a_cache_read_again(options):
    model = make_model(small_config(**options)).eval()
    initialize(model, 3)
    backend = torch_backend(model, 2)
    texts = [[5, 9, 6], [7, 8, 9, 4, 3]]
    for text, logits in zip(texts, backend.prefill(dict(enumerate(texts))), strict=True):
        assert np.allclose(logits, uncached(model, text), atol=CLOSE)
    rows = backend.step({1: 11, 0: 12})
    assert np.allclose(rows[0], uncached(model, [*texts[1], 11]), atol=CLOSE)
    assert np.allclose(rows[1], uncached(model, [*texts[0], 12]), atol=CLOSE)
