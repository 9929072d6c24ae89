import math

import pytest
import torch

from atlas.errors import AtlasError
from atlas.generation.generate import GREEDY, Continuation, Sampling, generate
from atlas.generation.sampling import keep_top_k, keep_top_p, next_token
from atlas.model.decoder import Decoder
from atlas.model.initialise import initialise
from atlas.model.make import make_model
from tests.small import small_config

INF = math.inf
LOGITS = torch.tensor([0.5, 0.2, 0.2, 0.1]).log()


def kept(logits):
    return [index for index, value in enumerate(logits.tolist()) if value > -INF]


@pytest.mark.parametrize(
    ("k", "expected"),
    [(0, [0, 1, 2, 3]), (1, [0]), (2, [0, 1, 2]), (3, [0, 1, 2]), (9, [0, 1, 2, 3])],
)
def test_top_k(k, expected):
    assert kept(keep_top_k(LOGITS, k)) == expected


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        (0.01, [0]),
        (0.49, [0]),
        (0.6, [0, 1]),
        (0.75, [0, 1, 2]),
        (0.95, [0, 1, 2, 3]),
        (1, [0, 1, 2, 3]),
    ],
)
def test_top_p(p, expected):
    assert kept(keep_top_p(LOGITS, p)) == expected


def test_top_p_follows_the_order_of_tokens_not_of_probabilities():
    shuffled = LOGITS[[3, 1, 0, 2]]
    assert kept(keep_top_p(shuffled, 0.6)) == [1, 2]


def draws(temperature, top_k, top_p, count=4000):
    generator = torch.Generator().manual_seed(0)
    found = [next_token(LOGITS, temperature, top_k, top_p, generator) for _ in range(count)]
    return [found.count(token) / count for token in range(4)]


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p", "expected"),
    [
        (1.0, 0, 1.0, [0.5, 0.2, 0.2, 0.1]),
        (0.5, 0, 1.0, [25 / 34, 4 / 34, 4 / 34, 1 / 34]),
        (1.0, 1, 1.0, [1, 0, 0, 0]),
        (1.0, 0, 0.6, [5 / 7, 2 / 7, 0, 0]),
        (0.0, 0, 1.0, [1, 0, 0, 0]),
    ],
)
def test_tokens_come_as_often_as_they_should(temperature, top_k, top_p, expected):
    assert draws(temperature, top_k, top_p) == pytest.approx(expected, abs=0.03)


@pytest.fixture(scope="module")
def model():
    model = Decoder(small_config())
    initialise(model, 0)
    with torch.no_grad():  # far from uniform, so that greedy has no ties
        for parameter in model.parameters():
            parameter.mul_(5)
    return model.eval()


def test_greedy_takes_the_likeliest_each_time(model):
    ids = [5, 6]
    for token in generate(model, [5, 6], 10, GREEDY):
        assert token == int(model(torch.tensor([ids]))[0, -1].argmax())
        ids.append(token)


def test_the_same_seed_gives_the_same_text(model):
    def sample(seed):
        return list(generate(model, [5], 20, Sampling(1.0, 0, 1.0, seed)))

    assert sample(1) == sample(1)
    assert sample(1) != sample(2)


def test_generation_goes_on_beyond_the_context(model):
    tokens = list(generate(model, [5], 80, Sampling(1.0, 0, 1.0, 3)))
    ids = [5, *tokens]
    assert len(tokens) > model.config.context_length
    window = torch.tensor([ids[40 - 32 : 40]])
    greedy = list(generate(model, ids[:40], 1, GREEDY))
    assert greedy == [int(model(window)[0, -1].argmax())]


def test_the_end_of_a_text_ends_it(model):
    ends = Decoder(small_config(tied_head=False)).eval()
    with torch.no_grad():
        for parameter in ends.parameters():
            parameter.fill_(1.0)
        ends.head.weight.zero_()
        ends.head.weight[1] = 1.0
        ends.embedding.weight.copy_(torch.arange(32.0).expand(400, 32))
    assert list(generate(ends, [5], 10, GREEDY)) == []


def test_an_empty_prompt_begins_a_text(model):
    assert list(generate(model, [], 3, GREEDY)) == list(generate(model, [1], 3, GREEDY))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"positions": "alibi", "window": 7},
        {"positions": "learned", "qk_norm": "head"},
        {"kind": "two_layer", "window": 4},
        {"kind": "encoder_decoder", "separator": 9},
    ],
)
def test_the_logits_are_those_of_the_newest_tokens_before_and_beyond_the_context(options):
    model = make_model(small_config(**options)).eval()
    initialise(model, 3)
    length = model.config.context_length
    ids = [5, 9, *torch.randint(10, 400, (length + 4,)).tolist()]
    if model.config.kind == "encoder_decoder":
        ids = ids[:length]  # a question that is not there any more has no answer
    continuation = Continuation(model)
    for end in (3, 4, 5, 11, *range(12, len(ids) + 1)):
        expected = model(torch.tensor([ids[:end][-length:]]))[0, -1]
        assert torch.allclose(continuation.after(ids[:end]), expected, atol=1e-5), end


def test_a_model_of_questions_hears_each_from_its_beginning():
    model = make_model(small_config(separator=9)).eval()
    initialise(model, 3)
    question = [5, 6, 9]
    logits = model(torch.tensor([[model.config.eos, *question]]))[0, -1]
    assert next(generate(model, question, 1, GREEDY)) == logits.argmax()


def test_an_answer_ends_where_the_context_does():
    model = make_model(small_config(kind="encoder_decoder", separator=9)).eval()
    initialise(model, 3)
    length = model.config.context_length
    with torch.no_grad():
        model.embedding.weight[model.config.eos] = 0  # tied: never the likeliest
    assert len(list(generate(model, [5, 9], 500, GREEDY))) == length - 2
    assert len(list(generate(model, [5] * (length - 2) + [9], 500, GREEDY))) == 1
    with pytest.raises(AtlasError, match="the prompt has 32 tokens"):
        next(generate(model, [5] * (length - 1) + [9], 500, GREEDY))
    with pytest.raises(AtlasError, match="the prompt ends no question"):
        next(generate(model, [5, 6], 500, GREEDY))


def test_a_decoder_reads_each_token_once(model, monkeypatch):
    read = []
    forward = model.forward

    def counting(ids, **given):
        read.append(ids.shape[1])
        return forward(ids, **given)

    monkeypatch.setattr(model, "forward", counting)
    count = len(list(generate(model, [5, 6, 7], 6, Sampling(1.0, 0, 1.0, seed=4))))
    assert read[: count or 1] == [3] + [1] * (max(count, 1) - 1)
