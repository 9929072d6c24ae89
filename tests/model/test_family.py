"""Properties of every decoder, whatever its options."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas.model.attention import Attention, KVCache
from tests.model.family import GRID, OPTIONS, T, V, config_of, decoder, ids_of, trained

CLOSE = 2e-5  # for logits of about 1 in float32
family = given(OPTIONS)
examples = settings(max_examples=40, deadline=None, derandomize=True)


@examples
@given(OPTIONS, st.integers(1, T - 1))
def test_a_later_token_changes_no_earlier_logit(options, place):
    model, ids = decoder(**options), ids_of(2, T)
    changed = ids.clone()
    changed[:, place:] = (ids[:, place:] + 1) % V
    before, after = model(ids), model(changed)
    assert torch.allclose(before[:, :place], after[:, :place], atol=CLOSE)
    assert not torch.allclose(before[:, place:], after[:, place:], atol=1e-3)


@examples
@given(OPTIONS, st.integers(1, 5), st.sampled_from(["left", "right"]))
def test_padding_changes_nothing(options, count, side):
    model, ids = decoder(**options), ids_of(3, T - 5)
    alone = model(ids)
    filling = ids_of(3, count, seed=1)
    true, false = torch.ones_like(ids).bool(), torch.zeros_like(filling).bool()
    order = (lambda a, b: (b, a)) if side == "left" else (lambda a, b: (a, b))
    padded = model(torch.cat(order(ids, filling), 1), torch.cat(order(true, false), 1))
    kept = padded[:, count:] if side == "left" else padded[:, : ids.shape[1]]
    assert torch.allclose(kept, alone, atol=CLOSE)
    assert padded.isfinite().all()


@examples
@given(OPTIONS, st.lists(st.integers(1, 6), min_size=1, max_size=6))
def test_a_cache_does_not_change_the_logits(options, parts):
    model, ids = decoder(**options), ids_of(2, T)
    cache = KVCache.empty(model.config, 2, model.embedding.weight)
    whole, position = model(ids), 0
    for part in [*parts, *[1] * T]:
        new = ids[:, position : position + part]
        if not new.numel():
            break
        logits = model(new, cache=cache)
        assert torch.allclose(logits, whole[:, position : position + part], atol=CLOSE)
        position += part
        assert cache.lengths == [min(position, T)] * 2


@examples
@family
def test_rows_of_a_cache_have_their_own_lengths(options):
    model, ids = decoder(**options), ids_of(2, 10)
    mask = torch.ones(2, 7, dtype=torch.bool)
    mask[1, 3:] = False
    cache = KVCache.empty(model.config, 2, model.embedding.weight)
    whole = model(ids)
    logits = model(ids[:, :7], mask, cache)
    assert torch.allclose(logits[0], whole[0, :7], atol=CLOSE)
    assert torch.allclose(logits[1, :3], whole[1, :3], atol=CLOSE)
    for step in range(3):
        new = torch.stack((ids[0, 7 + step], ids[1, 3 + step]))[:, None]
        logits = model(new, cache=cache)[:, 0]
        assert torch.allclose(logits[0], whole[0, 7 + step], atol=CLOSE)
        assert torch.allclose(logits[1], whole[1, 3 + step], atol=CLOSE)
    assert cache.lengths == [10, 6]
    first = cache.row(0)
    model(ids[:1, :4], cache=first)
    assert (first.lengths, cache.lengths) == ([4], [10, 6])


def test_a_cache_is_padded_only_on_the_right():
    model = decoder()
    mask = torch.tensor([[True, True, True], [False, True, True]])
    with pytest.raises(ValueError, match="rows must be padded on the right"):
        model(ids_of(2, 3), mask, KVCache.empty(model.config, 2, model.embedding.weight))


@examples
@family
def test_explicit_attention_equals_fused_and_its_rows_sum_to_1(options):
    model, ids = decoder(**options), ids_of(2, T)
    weights: list[torch.Tensor] = []
    explicit = model(ids, weights=weights)
    assert torch.allclose(explicit, model(ids), atol=CLOSE)
    assert len(weights) == model.config.n_layer
    for each in weights:
        assert each.shape == (2, model.config.n_head, T, T)
        assert torch.allclose(each.sum(-1), torch.ones(()), atol=1e-5)
        assert (each.triu(1) == 0).all()
        if model.config.window:
            assert (each.tril(-model.config.window) == 0).all()
            assert (each.diagonal(-model.config.window + 1, 2, 3) > 0).all()


@examples
@family
def test_every_weight_gets_a_gradient(options):
    model, ids = decoder(**options), ids_of(8, T)
    F.cross_entropy(model(ids).flatten(0, 1), ids_of(8, T, seed=3).flatten()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        # Adding the same vector to every key changes no softmax, unless keys are normed or rotated.
        if not name.endswith("key.bias"):
            assert parameter.grad.abs().sum() > 0, name


@examples
@family
def test_four_times_the_usual_input_gives_finite_logits_and_gradients(options):
    model, ids = decoder(**options), ids_of(4, T)
    with torch.no_grad():
        model.embedding.weight.mul_(4)
    logits = model(ids)
    assert logits.isfinite().all()
    logits.logsumexp(-1).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("options", [each for each in GRID if each.get("positions") != "none"])
def test_order_matters(options):
    model, ids = decoder(**options), ids_of(1, T)
    swapped = ids.clone()
    swapped[0, [-3, -2]] = ids[0, [-2, -3]]
    assert not torch.allclose(model(ids)[0, -1], model(swapped)[0, -1], atol=1e-5)


def test_without_positions_one_block_sees_a_set():
    model = decoder(positions="none", n_layer=1)
    ids = ids_of(1, T)
    swapped = ids.clone()
    swapped[0, [2, 5]] = ids[0, [5, 2]]
    assert torch.allclose(model(ids)[0, -1], model(swapped)[0, -1], atol=1e-5)


def without_dropout(model):
    """Disable all dropout of a model; each test enables one place again."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif isinstance(module, Attention):
            module.dropout = 0.0


@pytest.mark.parametrize("explicit", [False, True])
@pytest.mark.parametrize("place", ["embedding", "attention weights", "branch"])
def test_dropout_acts_at_each_place_and_only_in_training(place, explicit):
    model, ids = decoder(dropout=0.5), ids_of(2, T)
    without_dropout(model)
    weights = {"weights": []} if explicit else {}
    model.train()
    expected = model(ids, **weights)
    assert torch.equal(model(ids, **weights), expected)
    match place:
        case "embedding":
            model.dropout.p = 0.5
        case "attention weights":
            model.blocks[1].attention.dropout = 0.5
        case "branch":
            model.blocks[1].dropout.p = 0.5
    assert not torch.allclose(model(ids, **weights), expected, atol=1e-3)
    model.eval()
    assert torch.allclose(model(ids, **weights), expected, atol=1e-6)


def test_every_layer_has_the_configured_dropout():
    model = decoder(dropout=0.25)
    assert model.dropout.p == 0.25
    for block in model.blocks:
        assert block.dropout.p == block.attention.dropout == 0.25
    assert trained(config_of(kind="two_layer", window=2, dropout=0.25)).dropout.p == 0.25


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {},
        pytest.param({"positions": "alibi", "window": 3}, marks=pytest.mark.very_slow),
        pytest.param({"kind": "encoder_decoder", "separator": 5}, marks=pytest.mark.very_slow),
    ],
)
def test_a_model_compiled_once_takes_every_length(options):
    torch.compiler.reset()
    model = trained(config_of(**options, n_layer=1))
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True, dynamic=True)
    for length in (5, T):
        ids = ids_of(2, length)
        ids[:, 3] = 5
        where = slice(3, None) if "separator" in options else slice(None)
        assert torch.allclose(compiled(ids)[:, where], model(ids)[:, where], atol=CLOSE)


@pytest.mark.parametrize(
    ("ids", "mask", "words"),
    [
        (
            torch.zeros(1, T + 1, dtype=torch.long),
            None,
            "17 tokens, and model.context_length",
        ),
        (torch.zeros(0, 4, dtype=torch.long), None, r"ids of shape \(0, 4\)"),
        (torch.zeros(2, 0, dtype=torch.long), None, r"ids of shape \(2, 0\)"),
        (torch.zeros(4, dtype=torch.long), None, r"ids of shape \(4,\)"),
        (torch.tensor([[1, V, 2]]), None, "the id 60 is not in the vocabulary: 0 to 59"),
        (torch.tensor([[1, -1, 2]]), None, "the id -1 is not in the vocabulary"),
        (torch.zeros(2, 3, dtype=torch.long), torch.ones(2, 4).bool(), r"bool of shape \(2, 4\)"),
        (torch.zeros(2, 3, dtype=torch.long), torch.ones(2, 3), "a mask of torch.float32"),
        (
            torch.zeros(2, 3, dtype=torch.long),
            torch.tensor([[True, True, False], [False, False, False]]),
            "row 1 of the mask has no token",
        ),
    ],
)
def test_invalid_inputs_are_refused_by_name(ids, mask, words):
    with pytest.raises(ValueError, match=words):
        decoder()(ids, mask)


def test_a_cache_is_limited_to_the_context_length():
    model = decoder()
    cache = KVCache.empty(model.config, 1, model.embedding.weight)
    model(ids_of(1, T - 1), cache=cache)
    with pytest.raises(ValueError, match="17 tokens"):
        model(ids_of(1, 2), cache=cache)
    with pytest.raises(ValueError, match="2 texts, but the cache has 1 rows"):
        model(ids_of(2, 1), cache=cache)
    assert cache.lengths == [T - 1]
