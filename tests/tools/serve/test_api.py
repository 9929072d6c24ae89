"""The server as OpenAI's own client sees it."""

import math
import time
from itertools import pairwise

import httpx
import numpy as np
import openai
import pytest
import torch

from atlas.inference.batch import TokenSequence
from atlas.inference.sampling import Sampling, process_logits
from atlas.model.logits import softmax
from tests.tools.serve.support import opened_model, running


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


def logprobs_of(opened, ids):
    """Log probabilities (T, V) of the token after each id, from the model itself."""
    with torch.no_grad():
        return opened.model(torch.tensor([ids]))[0].log_softmax(-1)


def check_prompt(opened, ids, found):
    """Compare the logprobs of an echoed prompt with those of the model."""
    expected = logprobs_of(opened, ids)
    assert found.tokens[: len(ids)] == [opened.piece(each) for each in ids]
    assert (found.token_logprobs[0], found.top_logprobs[0]) == (None, None)
    for position, token in enumerate(ids[1:], start=1):
        row = expected[position - 1]
        assert found.token_logprobs[position] == pytest.approx(float(row[token]), abs=1e-5)
        best = max(found.top_logprobs[position].values())
        assert best == pytest.approx(float(row.max()), abs=1e-5)
        assert (found.token_logprobs[position] == best) == (token == int(row.argmax()))


@pytest.mark.parametrize("text", ["the lamp", " two  blanks\n", "one é€😀 stone", "x", ""])
def test_echo_scores_a_prompt(client, opened, text):
    ids = opened.encode(text)
    done = client.completions.create(
        model="small", prompt=text, echo=True, logprobs=1, max_tokens=0
    )
    (choice,) = done.choices
    assert (choice.text, choice.finish_reason) == (text, "length")
    assert (done.usage.prompt_tokens, done.usage.completion_tokens) == (len(ids), 0)
    check_prompt(opened, ids, choice.logprobs)
    offsets = [*choice.logprobs.text_offset, len(text)]
    assert offsets[0] == 0
    assert offsets == sorted(offsets)
    parts = [text[start:end] for start, end in pairwise(offsets)]
    assert "".join(parts) == text
    if text == "the lamp":
        assert parts == choice.logprobs.tokens


def test_echo_scores_several_prompts_of_any_kind(client, opened):
    texts = ["the lamp sees", "one", "a stone é"]
    ids = [opened.encode(text) for text in texts]
    asked = {"model": "small", "echo": True, "logprobs": 2, "max_tokens": 1, "temperature": 0}
    for prompt in (texts, ids):
        done = client.completions.create(prompt=prompt, **asked)
        assert [choice.index for choice in done.choices] == [0, 1, 2]
        for text, each, choice in zip(texts, ids, done.choices, strict=True):
            check_prompt(opened, each, choice.logprobs)
            assert len(choice.logprobs.tokens) == len(each) + 1
            assert choice.text.startswith(text)
            last = choice.logprobs.text_offset[-1]
            assert choice.text[last:] == alone(opened, text, 1, temperature=0)[0]
    (one,) = client.completions.create(prompt=ids[0], **asked).choices
    check_prompt(opened, ids[0], one.logprobs)


def test_echo_in_a_stream_and_without_logprobs(client, opened):
    asked = {"model": "small", "prompt": ["the lamp", "one"], "seed": 3, "max_tokens": 8, "n": 2}
    whole = client.completions.create(**asked, echo=True, logprobs=0)
    plain = client.completions.create(**asked, echo=True)
    expected = [
        prompt + alone(opened, prompt, 8, seed=seed)[0]
        for prompt in asked["prompt"] for seed in (3, 4)
    ]  # fmt: skip
    assert [choice.text for choice in plain.choices] == expected
    texts, scores = [""] * 4, [[] for _ in range(4)]
    for chunk in client.completions.create(**asked, echo=True, logprobs=0, stream=True):
        (choice,) = chunk.choices
        texts[choice.index] += choice.text
        if choice.logprobs:
            scores[choice.index] += choice.logprobs.token_logprobs
    assert texts == [choice.text for choice in whole.choices] == expected
    assert scores == [choice.logprobs.token_logprobs for choice in whole.choices]
    assert whole.choices[0].logprobs.top_logprobs[1] == {}


def test_the_sampler_has_no_probabilities_of_a_prompt(address, opened):
    more = {"echo": True, "logprobs": 1, "return_sampling_probs": True, "return_token_ids": True}
    asked = {"model": "small", "prompt": "the lamp", "max_tokens": 2} | more
    (choice,) = httpx.post(f"{address}/v1/completions", json=asked).json()["choices"]
    prompt = opened.encode("the lamp")
    assert choice["sampling_probs"][: len(prompt)] == [None] * len(prompt)
    assert None not in choice["sampling_probs"][len(prompt) :]
    assert len(choice["token_ids"]) == 2


def test_echo_lists_the_token_that_ends_a_text(client, opened):
    """The harness leaves out the last token, and so relies on one after the prompt."""
    end = str(opened.tokenizer.eos)
    done = client.completions.create(
        model="small", prompt="the lamp", echo=True, logprobs=1, max_tokens=1, temperature=0,
        logit_bias={end: 100}, extra_body={"return_token_ids": True},
    )  # fmt: skip
    (choice,) = done.choices
    ids = opened.encode("the lamp")
    assert (choice.text, choice.finish_reason, choice.token_ids) == ("the lamp", "stop", [])
    assert len(choice.logprobs.tokens) == len(ids) + 1
    assert choice.logprobs.token_logprobs[-1] == pytest.approx(
        float(logprobs_of(opened, ids)[-1][opened.tokenizer.eos]), abs=1e-5
    )
    check_prompt(opened, ids, choice.logprobs)


def test_a_prompt_in_echo_has_no_blank_that_its_tokenizer_added(opened, monkeypatch):
    decode = opened.decode  # as a GGUF file of Llama's vocabulary does
    with running(opened) as address, monkeypatch.context() as patched:
        patched.setattr(type(opened), "decode", lambda _, ids: " " * (len(ids) > 0) + decode(ids))
        asked = {"model": "small", "prompt": "the lamp", "echo": True, "logprobs": 0}
        answer = httpx.post(f"{address}/v1/completions", json=asked | {"max_tokens": 0})
    (choice,) = answer.json()["choices"]
    assert choice["text"] == "the lamp"
    assert choice["logprobs"]["text_offset"][0] == 0


def test_a_question_is_not_scored(tokenizer):
    separator = tokenizer.encode("=")[-1]
    asking = opened_model(tokenizer, kind="encoder_decoder", separator=separator)
    ids = [*tokenizer.encode("one"), separator, *tokenizer.encode(" lamp")]
    with running(asking) as address:
        asked = {"model": "small", "echo": True, "logprobs": 1, "max_tokens": 0}
        answer = httpx.post(f"{address}/v1/completions", json=asked | {"prompt": ids})
        found = answer.json()["choices"][0]["logprobs"]["token_logprobs"]
        question = ids.index(separator) + 1
        assert found[:question] == [None] * question
        assert None not in found[question:]
        answer = httpx.post(f"{address}/v1/completions", json=asked | {"prompt": ids[:1]})
        assert answer.status_code == 400
        assert "not a question" in answer.json()["error"]["message"]


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


def test_an_answer_can_be_sent_back(client):
    """Clients send the whole message of a response, with its null fields, in the next request."""
    messages = [{"role": "user", "content": "the lamp"}]
    asked = {"model": "small", "max_tokens": 4, "seed": 1}
    message = client.chat.completions.create(messages=messages, **asked).choices[0].message
    history = [*messages, message, {"role": "user", "content": "one"}]
    assert client.chat.completions.create(messages=history, **asked).choices[0].message.content


def test_clients_may_give_up(client, address):
    asked = {"model": "small", "prompt": "the", "max_tokens": 500}
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.01).completions.create(**asked)
    with client.completions.create(**asked, stream=True) as stream:
        next(iter(stream))
    deadline = time.monotonic() + 10
    while "atlas_sequences_running 0.0" not in httpx.get(f"{address}/metrics").text:
        assert time.monotonic() < deadline, "a request that was given up still runs"


def test_what_is_absent_is_named(client):
    with pytest.raises(openai.NotFoundError, match="this server has /v1/models"):
        client.embeddings.create(model="small", input="x")
    tools = [{"type": "function", "function": {"name": "f"}}]
    with pytest.raises(openai.BadRequestError, match="tools: not supported") as refused:
        client.chat.completions.create(
            model="small", messages=[{"role": "user", "content": "x"}], tools=tools
        )
    assert (refused.value.param, refused.value.code) == ("tools", "unsupported_value")


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
