"""The server as OpenAI's own client sees it."""

import math

import httpx
import numpy as np
import openai
import pytest
import torch

from atlas.inference.batch import TokenSequence
from atlas.inference.sampling import Sampling, process_logits
from atlas.model.logits import softmax
from tests.tools.serve.support import running


@pytest.fixture(scope="module")
def client(address):
    with openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:
        yield client


def alone(opened, prompt, tokens, **options):
    """Generate with the model directly."""
    sampling = Sampling(**{"temperature": 1, "top_k": 0, "top_p": 1} | options)
    text = TokenSequence(opened.encode(prompt), tokens, sampling)
    return "".join(opened.stream(text)), text


def test_models(client):
    (model,) = client.models.list().data
    assert model.id == "small"
    assert client.models.retrieve("small").id == "small"
    with pytest.raises(openai.NotFoundError, match="model 'other' not found"):
        client.models.retrieve("other")


def test_a_completion_equals_the_models_own_with_that_seed(client, opened):
    done = client.completions.create(model="small", prompt="the lamp", max_tokens=30, seed=7)
    written, text = alone(opened, "the lamp", 30, seed=7)
    (choice,) = done.choices
    assert (choice.text, choice.finish_reason) == (written, "length")
    assert done.object == "text_completion"
    assert done.usage.prompt_tokens == len(text.prompt)
    assert done.usage.completion_tokens == 30
    assert done.usage.total_tokens == 30 + len(text.prompt)


def test_a_stream_has_the_same_text(client, opened):
    asked = {"model": "small", "prompt": "a é stone", "max_tokens": 40, "seed": 3}
    chunks = list(
        client.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    )
    *parts, last = chunks
    assert (
        "".join(part.choices[0].text for part in parts) == alone(opened, "a é stone", 40, seed=3)[0]
    )
    assert [part.choices[0].finish_reason for part in parts][-1] == "length"
    assert len({part.id for part in chunks}) == 1
    assert len(parts) > 10
    assert (last.choices, last.usage.completion_tokens) == ([], 40)


def test_sampling_options_reach_the_model(client, opened):
    options = {"temperature": 0.7, "top_p": 0.9, "presence_penalty": 1.0, "frequency_penalty": 0.5}
    more = {"top_k": 20, "min_p": 0.01, "repetition_penalty": 1.2}
    done = client.completions.create(
        model="small", prompt="one", max_tokens=25, seed=2, logit_bias={"300": 5},
        extra_body=more, **options,
    )  # fmt: skip
    expected, _ = alone(opened, "one", 25, seed=2, logit_bias={300: 5}, **options, **more)
    assert done.choices[0].text == expected


def test_n_uses_consecutive_seeds_and_several_prompts(client, opened):
    done = client.completions.create(
        model="small", prompt=["the lamp", "one"], max_tokens=8, n=2, seed=5
    )
    expected = [
        alone(opened, prompt, 8, seed=seed)[0] for prompt in ("the lamp", "one") for seed in (5, 6)
    ]
    assert [choice.text for choice in done.choices] == expected
    assert [choice.index for choice in done.choices] == [0, 1, 2, 3]
    assert done.usage.completion_tokens == 32
    ids = opened.encode("the lamp")
    assert done.usage.prompt_tokens == len(ids) + len(opened.encode("one"))
    given = client.completions.create(model="small", prompt=ids, max_tokens=8, seed=5)
    assert given.choices[0].text == expected[0]
    both = client.completions.create(model="small", prompt=[ids, ids], max_tokens=8, seed=5)
    assert [choice.text for choice in both.choices] == [expected[0]] * 2


def test_streamed_choices_have_their_index(client, opened):
    came = ["", "", ""]
    for chunk in client.completions.create(
        model="small", prompt="the", max_tokens=12, n=3, seed=1, stream=True
    ):
        came[chunk.choices[0].index] += chunk.choices[0].text
    assert came == [alone(opened, "the", 12, seed=seed)[0] for seed in (1, 2, 3)]


def test_logprobs_of_completions(client, opened):
    done = client.completions.create(
        model="small", prompt="the lamp", max_tokens=5, seed=1, logprobs=3, temperature=0
    )
    found = done.choices[0].logprobs
    assert len(found.tokens) == len(found.token_logprobs) == len(found.top_logprobs) == 5
    for token, logprob, likeliest in zip(
        found.tokens, found.token_logprobs, found.top_logprobs, strict=True
    ):
        assert len(likeliest) <= 3
        assert likeliest[token] == logprob == max(likeliest.values())
        assert math.exp(logprob) <= 1
    assert found.text_offset[0] == 0


@pytest.mark.parametrize(
    "options", [{}, {"temperature": 0}, {"top_p": 0.5}, {"top_k": 2}, {"repetition_penalty": 3}]
)
def test_the_probabilities_that_the_sampler_used(address, opened, options):
    body = {"model": "small", "prompt": "the lamp", "max_tokens": 4, "seed": 1, **options}
    more = {"logprobs": 5, "return_token_ids": True, "return_sampling_probs": True}
    plain, done = (
        httpx.post(f"{address}/v1/completions", json=each).json()["choices"][0]
        for each in (body, body | more)
    )
    assert done["text"] == plain["text"]
    sampling = Sampling(**{"temperature": 1, "top_k": 0, "top_p": 1} | options)
    prompt, ids = done["prompt_token_ids"], done["token_ids"]
    for at, found in enumerate(done["sampling_probs"]):
        with torch.no_grad():
            logits = opened.model(torch.tensor([[*prompt, *ids[:at]]]))[0, -1].numpy()
        expected = softmax(process_logits(logits, sampling, prompt, ids[:at]))
        if sampling.is_greedy:
            expected = np.eye(len(logits))[expected.argmax()]
        assert set(found) == {*done["logprobs"]["top_logprobs"][at], opened.piece(ids[at])}
        for piece, probability in found.items():
            close = [value for each, value in enumerate(expected) if opened.piece(each) == piece]
            assert any(probability == pytest.approx(value, abs=1e-4) for value in close)
        assert found[opened.piece(ids[at])] > 0


def test_chat(client, opened):
    messages = [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": [{"type": "text", "text": "the lamp"}]},
    ]
    done = client.chat.completions.create(
        model="small", messages=messages, max_completion_tokens=20, seed=4,
        logprobs=True, top_logprobs=2,
    )  # fmt: skip
    (choice,) = done.choices
    expected, _ = alone(opened, "be kind\nthe lamp", 20, seed=4)
    assert choice.message.role == "assistant"
    assert choice.message.content == expected
    assert len(choice.logprobs.content) == 20
    first = choice.logprobs.content[0]
    assert bytes(first.bytes).decode() == first.token
    assert len(first.top_logprobs) == 2
    chunks = list(
        client.chat.completions.create(
            model="small", messages=messages, max_tokens=20, seed=4, stream=True
        )
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == expected
    assert chunks[-1].choices[0].finish_reason == "length"


def test_a_stop_string_ends_a_completion_and_is_not_in_it(client, opened):
    whole, _ = alone(opened, "the lamp", 60, seed=9)
    stop = whole[20:23]
    for stream in (False, True):
        done = client.completions.create(
            model="small", prompt="the lamp", max_tokens=60, seed=9, stop=[stop, "never"],
            stream=stream,
        )  # fmt: skip
        chunks = list(done) if stream else [done]
        assert "".join(chunk.choices[0].text for chunk in chunks) == whole[: whole.find(stop)]
        assert chunks[-1].choices[0].finish_reason == "stop"
    ids = client.completions.create(
        model="small", prompt="the lamp", max_tokens=60, seed=9, stop=stop,
        extra_body={"return_token_ids": True},
    )  # fmt: skip
    assert ids.usage.completion_tokens == len(ids.choices[0].token_ids) < 60


def test_without_a_seed_completions_differ(client):
    texts = {
        client.completions.create(model="small", prompt="the", max_tokens=20).choices[0].text
        for _ in range(4)
    }
    assert len(texts) > 1


def test_bytes_of_a_partial_character(client, opened):
    byte = opened.tokenizer.encode("\u00e9")[0]  # not a piece of this vocabulary
    done = client.chat.completions.create(
        model="small", messages=[{"role": "user", "content": "x"}], max_tokens=5,
        max_completion_tokens=1, temperature=0, logit_bias={str(byte): 100}, logprobs=True,
    )  # fmt: skip
    (token,) = done.choices[0].logprobs.content
    assert (token.token, token.bytes) == ("<0xC3>", [0xC3])


def test_token_ids_on_request(client, opened):
    done = client.completions.create(
        model="small", prompt="the lamp", max_tokens=6, seed=1,
        extra_body={"return_token_ids": True},
    )  # fmt: skip
    _, text = alone(opened, "the lamp", 6, seed=1)
    assert done.choices[0].token_ids == text.output_ids
    assert done.choices[0].prompt_token_ids == list(text.prompt)


def test_errors_have_openais_codes(client):
    def ask(**changed):
        return client.completions.create(**{"model": "small", "prompt": "x"} | changed)

    with pytest.raises(openai.NotFoundError) as refused:
        ask(model="gpt-4")
    assert (refused.value.code, refused.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError) as refused:
        ask(prompt="word " * 200)
    assert refused.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError, match=r"temperature: .*greater than or equal to 0"):
        ask(temperature=-1)
    with pytest.raises(openai.BadRequestError, match="max_tokens: 501; at most 500"):
        ask(max_tokens=501)
    with pytest.raises(openai.BadRequestError, match="n: 7 sequences; at most 6"):
        ask(n=7)


def test_the_key_is_required(opened):
    with running(opened, key="secret") as address:
        url = f"{address}/v1"
        with (
            openai.OpenAI(base_url=url, api_key="wrong", max_retries=0) as client,
            pytest.raises(openai.AuthenticationError, match="needs an API key"),
        ):
            client.models.list()
        with openai.OpenAI(base_url=url, api_key="secret") as client:
            assert client.models.list().data[0].id == "small"
