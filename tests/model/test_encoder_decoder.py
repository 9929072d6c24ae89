"""The encoder-decoder: what source and target can see."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas.model.weights import initialize, make_model
from tests.model import family
from tests.model.family import T, V, config_of, ids_of, trained

SEPARATOR = 5
OPTIONS = family.OPTIONS.map(lambda options: options | {"window": None})
examples = settings(max_examples=25, deadline=None, derandomize=True)


def make(**options):
    return trained(config_of(kind="encoder_decoder", separator=SEPARATOR, **options))


def questions(rows=2, at=6):
    """Return random ids whose first separator is at ``at``."""
    ids = ids_of(rows, T) % (V - 10) + 10
    ids[:, at] = SEPARATOR
    return ids


@examples
@given(OPTIONS)
def test_an_answer_sees_the_whole_question_and_no_later_token(options):
    model, ids = make(**options), questions()
    logits = model(ids)
    later = ids.clone()
    later[:, 10:] = (ids[:, 10:] - 9) % (V - 10) + 10
    assert torch.allclose(model(later)[:, 6:10], logits[:, 6:10], atol=2e-5)
    for place in (0, 5):
        asked = ids.clone()
        asked[:, place] = (asked[:, place] - 9) % (V - 10) + 10
        assert not torch.allclose(model(asked)[:, 6:], logits[:, 6:], atol=1e-4)


@examples
@given(OPTIONS, st.integers(1, 4))
def test_padding_changes_nothing(options, count):
    model, ids = make(**options), questions()[:, : T - 4]
    alone = model(ids)[:, 6:]
    filling = ids_of(2, count, seed=1)
    true, false = torch.ones_like(ids).bool(), torch.zeros_like(filling).bool()
    right = model(torch.cat((ids, filling), 1), torch.cat((true, false), 1))
    left = model(torch.cat((filling, ids), 1), torch.cat((false, true), 1))
    assert torch.allclose(right[:, 6 : ids.shape[1]], alone, atol=2e-5)
    assert torch.allclose(left[:, 6 + count :], alone, atol=2e-5)
    unmasked = model(torch.cat((ids, filling), 1))
    assert torch.allclose(unmasked[:, 6 : ids.shape[1]], alone, atol=2e-5)


@examples
@given(OPTIONS)
def test_every_weight_gets_a_gradient(options):
    model, ids = make(**options), questions(8)
    F.cross_entropy(model(ids)[:, 6:-1].flatten(0, 1), ids[:, 7:].flatten()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        if not name.endswith("key.bias"):  # which cannot change a softmax
            assert parameter.grad.abs().sum() > 0, name


@examples
@given(OPTIONS)
def test_explicit_attention_equals_fused_and_its_rows_sum_to_1(options):
    model, ids = make(**options), questions(3)
    ids[1, 6], ids[1, 9] = 11, SEPARATOR
    in_target = (ids == SEPARATOR).cumsum(1) > 0
    in_source = ~in_target | (ids == SEPARATOR)
    reading: list[torch.Tensor] = []
    writing: list[torch.Tensor] = []
    source = model.encode(ids, in_source, weights=reading)
    logits = model.decode(ids, in_target, source, in_source, weights=writing)
    for row, place in ((0, 6), (1, 9), (2, 6)):
        assert torch.allclose(logits[row, place:], model(ids)[row, place:], atol=2e-5)
    assert (len(reading), len(writing)) == (2, 4)
    for each in [*reading, *writing]:
        assert torch.allclose(each.sum(-1), torch.ones(()), atol=1e-5)
    encoder, own, cross = reading[0], writing[0], writing[1]
    assert (encoder[1, :, 0, :10] > 0).all()  # in both directions
    assert (encoder[1, :, 0, 10:] == 0).all()
    assert (own[0, :, 8, :6] == 0).all()
    assert (own[0, :, 8, 9:] == 0).all()
    assert (cross[0, :, 8, :7] > 0).all()
    assert (cross[0, :, 8, 7:] == 0).all()


def test_a_second_separator_is_part_of_the_answer():
    model, ids = make(), questions()
    again = ids.clone()
    again[:, 9] = SEPARATOR
    logits, others = model(ids), model(again)
    assert torch.allclose(logits[:, 6:9], others[:, 6:9], atol=2e-5)
    assert not torch.allclose(logits[:, 9:], others[:, 9:], atol=1e-3)


def test_a_row_without_a_question_is_refused():
    ids = questions(3)
    ids[2, 6] = 11
    with pytest.raises(ValueError, match=r"row 2 holds no separator \(id 5\)"):
        make()(ids)
    with pytest.raises(ValueError, match="needs a separator"):
        trained(config_of(kind="encoder_decoder"))


def test_source_and_target_have_attention_weights():
    model, ids = make(), questions()
    every = torch.ones_like(ids, dtype=torch.bool)
    source = model.encode(ids, every)
    with pytest.raises(ValueError, match="row 1 has no source"):
        model.decode(ids, every, source, every & torch.tensor([[True], [False]]))
    with pytest.raises(ValueError, match="the id 99 is not"):
        model.encode(ids + 99 - ids, every)
    with pytest.raises(ValueError, match="17 tokens"):
        model.encode(ids_of(1, T + 1), torch.ones(1, T + 1, dtype=torch.bool))


def test_each_stream_is_initialized_for_its_own_depth():
    model = make_model(config_of(kind="encoder_decoder", separator=SEPARATOR, d_ff=400, d_model=96))
    initialize(model, 0)
    inner = model.encoder[0].feed_forward.up.weight.std()
    for block, writes in ((model.encoder[1], 4), (model.decoder[1], 6)):
        outer = block.feed_forward.down.weight.std()
        assert (outer / inner).item() == pytest.approx(writes**-0.5, rel=0.05)
