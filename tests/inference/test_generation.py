import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas.errors import AtlasError
from atlas.inference.batch import RunningBatch, TokenSequence, prepare_prompt, visible_tokens
from atlas.inference.generate import CachedBackend, generate, generate_batch, torch_backend
from atlas.inference.sampling import GREEDY, Sampling
from atlas.model.transformer import Decoder
from atlas.model.weights import initialize, make_model
from tests.small import small_config

EOS = 1


def plain(seed, **options):
    return Sampling(temperature=1, top_k=0, top_p=1, seed=seed, **options)


@pytest.fixture(scope="module")
def model():
    model = Decoder(small_config())
    initialize(model, 0)
    with torch.no_grad():  # far from uniform, so that greedy has no ties
        for parameter in model.parameters():
            parameter.mul_(5)
        model.embedding.weight[EOS] = 0  # tied: it ends no text
    return model.eval()


def likeliest(model, ids):
    return int(model(torch.tensor([ids]))[0, -1].argmax())


def test_greedy_takes_the_likeliest_each_time(model):
    ids = [5, 6]
    for token in generate(model, [5, 6], 20, GREEDY):
        assert token == likeliest(model, ids)
        ids.append(token)
    assert len(ids) == 22


def test_the_same_seed_gives_the_same_text(model):
    def sample(seed):
        return generate(model, [5], 20, plain(seed))

    assert sample(1) == sample(1)
    assert sample(1) != sample(2)


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.lists(st.integers(2, 399), max_size=40), min_size=1, max_size=5),
    st.integers(1, 50),
    st.sampled_from([GREEDY, plain(3), Sampling(seed=4, repetition_penalty=1.3, min_p=0.01)]),
    st.sampled_from(["slide", "stop"]),
)
def test_a_batch_gives_the_same_texts_as_single_runs(model, prompts, most, sampling, on_overflow):
    samplings = [sampling.model_copy(update={"seed": seed}) for seed in range(len(prompts))]
    together = generate_batch(model, prompts, most, samplings, on_overflow)
    alone = [
        generate(model, prompt, most, each, on_overflow)
        for prompt, each in zip(prompts, samplings, strict=True)
    ]
    assert together == alone


def test_no_prompts_have_no_continuations(model):
    assert generate_batch(model, [], 5, []) == []


def test_beyond_the_context_the_newer_half_is_read_again(model):
    length = model.config.context_length
    ids = [5]
    for token in generate(model, [5], 3 * length, GREEDY):
        assert token == likeliest(model, ids[-visible_tokens(len(ids), length) :]), len(ids)
        ids.append(token)
    assert len(ids) == 1 + 3 * length


def test_what_is_visible_written_out():
    assert [visible_tokens(length, 4) for length in range(1, 12)] == [
        1,
        2,
        3,
        4,
        2,
        3,
        4,
        2,
        3,
        4,
        2,
    ]
    assert [visible_tokens(length, 5) for length in range(5, 11)] == [5, 2, 3, 4, 5, 2]
    assert [visible_tokens(length, 1) for length in range(1, 4)] == [1, 1, 1]


def test_at_the_end_of_the_context_a_text_may_stop(model):
    length = model.config.context_length
    assert len(generate(model, [5], 200, GREEDY, "stop")) == length
    assert len(generate(model, [5] * length, 200, GREEDY, "stop")) == 1


def test_of_a_longer_prompt_the_newest_tokens_are_seen(model):
    prompt = list(range(2, 100))
    length = model.config.context_length
    assert generate(model, prompt, 1, GREEDY) == [likeliest(model, prompt[-length:])]


def test_the_end_of_a_text_ends_it():
    ends = Decoder(small_config(tied_head=False)).eval()
    with torch.no_grad():
        for parameter in ends.parameters():
            parameter.fill_(1.0)
        ends.head.weight.zero_()
        ends.head.weight[1] = 1.0
        ends.embedding.weight.copy_(torch.arange(32.0).expand(400, 32))
    assert generate(ends, [5], 10, GREEDY) == []
    text = TokenSequence([5], 10, GREEDY)
    RunningBatch(torch_backend(ends, 1), {EOS}).add([text])
    assert (text.finish_reason, text.output_ids) == ("stop", [])
    assert text.end_token.id == EOS


def test_each_of_several_end_tokens_ends_a_text(model, monkeypatch):
    text = generate(model, [5], 10, GREEDY)
    for count in (1, 4):
        ends = {"end_ids": (EOS, text[count])}
        monkeypatch.setattr(model, "config", model.config.model_copy(update=ends))
        assert generate(model, [5], 10, GREEDY) == text[: text.index(text[count])]


def test_an_empty_prompt_starts_a_text(model):
    assert generate(model, [], 3, GREEDY) == generate(model, [EOS], 3, GREEDY)


@pytest.mark.parametrize("separator", [9, None])
def test_a_model_of_whole_documents_hears_each_from_its_beginning(separator):
    model = make_model(small_config(separator=separator, add_bos_token=True)).eval()
    initialize(model, 3)
    assert prepare_prompt(model.config, [5, 6, 9]) == [EOS, 5, 6, 9]
    assert generate(model, [5, 6, 9], 1, GREEDY)[0] == likeliest(model, [EOS, 5, 6, 9])


def test_an_answer_ends_where_the_context_does():
    model = make_model(small_config(kind="encoder_decoder", separator=9)).eval()
    initialize(model, 3)
    length = model.config.context_length
    with torch.no_grad():
        model.embedding.weight[EOS] = 0  # tied: never the most likely
    assert len(generate(model, [5, 9], 500, GREEDY)) == length - 2
    assert len(generate(model, [5] * (length - 2) + [9], 500, GREEDY)) == 1
    with pytest.raises(AtlasError, match="the prompt has 32 tokens"):
        generate(model, [5] * (length - 1) + [9], 500, GREEDY)
    with pytest.raises(AtlasError, match="the prompt is not a question"):
        generate(model, [5, 6], 500, GREEDY)


def test_a_decoder_reads_each_token_once(model, monkeypatch):
    read = []
    forward = model.forward

    def counting(ids, **given):
        read.append(ids.shape[1])
        return forward(ids, **given)

    monkeypatch.setattr(model, "forward", counting)
    backend = CachedBackend(model, 1)
    batch = RunningBatch(backend, ())
    batch.add([TokenSequence([5, 6, 7], 6, plain(4))])
    for _ in range(5):
        batch.step()
    assert read == [3, 1, 1, 1, 1, 1]


def test_texts_come_and_go(model):
    batch = RunningBatch(torch_backend(model, 2), {EOS})
    first, second, third = (TokenSequence([5 + n], 4 + 3 * n, plain(n)) for n in range(3))
    batch.add([first])
    assert batch.step() == [first]
    batch.add([second])
    assert batch.free_slots == 0
    with pytest.raises(ValueError, match="1 sequences for 0 free slots"):
        batch.add([third])
    assert batch.step() == [first, second]
    assert batch.step() == [first, second]
    assert (first.finish_reason, batch.free_slots) == ("length", 1)
    batch.add([third])
    batch.remove(second)
    batch.remove(second)
    while batch.step():
        pass
    alone = [
        generate(model, text.prompt, text.max_tokens, text.sampling)
        for text in (first, second, third)
    ]
    assert first.output_ids == alone[0]
    assert second.output_ids == alone[1][:3]
    assert third.output_ids == alone[2]


def test_a_prompt_is_scored_without_a_continuation(model):
    text = TokenSequence([5, 6, 7], 0, GREEDY, top_logprobs=2, score_prompt=True)
    batch = RunningBatch(torch_backend(model, 1), {EOS})
    batch.add([text])
    assert (text.finish_reason, text.output_ids, batch.free_slots) == ("length", [], 1)
    expected = model(torch.tensor([[5, 6, 7]]))[0].log_softmax(-1)
    assert [token.id for token in text.scored_prompt] == [5, 6, 7]
    assert text.scored_prompt[0].logprob is None
    for row, token in zip(expected, text.scored_prompt[1:], strict=False):
        assert token.logprob == pytest.approx(float(row[token.id].detach()), abs=1e-5)
        assert [each for each, _ in token.top_logprobs] == row.topk(2).indices.tolist()


def test_alternatives_are_the_models_own_probabilities(model):
    text = TokenSequence([5, 6], 3, Sampling(temperature=0.2, top_k=2, seed=1), top_logprobs=4)
    RunningBatch(torch_backend(model, 1), {EOS}).add([text])
    token = text.last_token
    expected = model(torch.tensor([[5, 6]]))[0, -1].log_softmax(0)
    assert token.logprob == pytest.approx(float(expected[token.id].detach()), abs=1e-5)
    values, ids = expected.topk(4)
    assert [each for each, _ in token.top_logprobs] == ids.tolist()
    assert [value for _, value in token.top_logprobs] == pytest.approx(values.tolist(), abs=1e-5)
    assert np.isfinite(token.logprob)
