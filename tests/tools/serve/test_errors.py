"""Whatever a client sends, it gets a clear error in OpenAI's format, and the server survives."""

import json
import os
import socket
import subprocess
import sys
import time
from urllib.parse import urlsplit

import httpx
import pytest

from atlas.tools.serve.engine import ServerOptions
from tests.tools.serve.support import opened_model, running

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_schema_conformance"
)


@pytest.fixture(scope="module")
def http(address):
    with httpx.Client(base_url=address, timeout=30) as client:
        yield client
        assert client.get("/health").json() == {"status": "ok"}
        done = client.post("/v1/completions", json={"model": "small", "prompt": "the"})
        assert done.status_code == 200


def check_error(answer, status, words=""):
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert words in error["message"]
    assert "Traceback" not in answer.text
    return error


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"temperature": -0.1}, "temperature: "),
        ({"temperature": "hot"}, "temperature: "),
        ({"temperature": 1e400}, "temperature: "),
        ({"top_p": 0}, "top_p: "),
        ({"top_k": -1}, "top_k: "),
        ({"max_tokens": 0}, "max_tokens: "),
        ({"max_tokens": 10**30}, "max_tokens: "),
        ({"max_tokens": 1.5}, "max_tokens: "),
        ({"n": 0}, "n: "),
        ({"seed": 2**70}, "seed: "),
        ({"stop": ["a"] * 5000}, "stop: 5000 strings; at most 16"),
        ({"stop": "x" * 5000}, "stop: must have 1 to 256 characters"),
        ({"stop": ""}, "stop: must have 1 to 256 characters"),
        ({"logprobs": 21}, "logprobs: "),
        ({"logit_bias": {"x": 1}}, "logit_bias.x"),
        ({"logit_bias": {"999999": 1}}, "logit_bias: 999999 is not a token id"),
        ({"logit_bias": {"-1": 1}}, "logit_bias.-1"),
        ({"logit_bias": {"\u0661": 1}}, "logit_bias."),
        ({"logit_bias": {"1" * 9999: 1}}, "logit_bias.1"),
        ({"temprature": 0}, "temprature: unknown field; did you mean temperature?"),
        ({"max_token": 5}, "max_token: unknown field; did you mean max_tokens?"),
        ({"maxTokens": 5}, "maxTokens: unknown field; did you mean max_tokens?"),
        ({"x" * 5000: 1}, "x: unknown field"),
        ({"\ud800": 1}, ": unknown field"),
        ({"something": 1}, "something: unknown field"),
        ({"repeat_penalty": 1.2}, "unknown field; did you mean repetition_penalty?"),
        ({"stream_options": {"include_usages": True}}, "stream_options.include_usages: unknown"),
        ({"tools": [{"type": "function"}]}, "tools: not supported; this server calls no tools"),
        ({"response_format": {"type": "json_object"}}, "response_format: not supported; "),
        ({"best_of": 2}, "best_of: 2 is not n (1); this server returns every completion"),
        ({"best_of": 1, "n": 2}, "best_of: 1 is not n (2)"),
        ({"suffix": "end"}, "suffix: not supported; this server only continues prompts"),
        ({"echo": "loud"}, "echo: "),
        ({"echo": False, "max_tokens": 0}, "max_tokens: 0 needs echo"),
        ({"echo": True, "max_tokens": -1}, "max_tokens: "),
        ({"echo": True, "prompt": [5] * 33}, "33 tokens; the context length is 32"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": [10**9]}, "is not a token id"),
        ({"prompt": [1, "a"]}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": ["a"] * 7}, "n: 7 sequences; at most 6 per request"),
        ({"prompt": "the lamp " * 100}, "tokens; the context length is 32"),
        ({"prompt": [5] * 33}, "33 tokens; the context length is 32"),
    ],
)
def test_wrong_values(http, changed, words):
    body = {"model": "small", "prompt": "x"} | changed
    answer = http.post(
        "/v1/completions", content=json.dumps(body), headers={"Content-Type": "application/json"}
    )
    check_error(answer, 400, words)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"messages": []}, "messages: "),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages.0.role: "),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content"),
        ({"messages": "hello"}, "messages: "),
        ({"messages": [{"role": "user", "content": "lamp " * 99}]}, "the context length is 32"),
        ({"messages": [{"role": "user", "content": None}]}, "messages.0.content: required"),
        ({"messages": [{"role": "user", "text": "x"}]}, "messages.0.content: required"),
        (
            {"messages": [{"role": "user", "contents": "x"}]},
            "messages.0.contents: unknown field; did you mean content?",
        ),
        (
            {"messages": [{"role": "user", "content": ["x"]}]},
            "messages.0.content: must be a string",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "must be a string"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages.0.content: image_url is not supported",
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"id": "1"}]}]},
            "messages.0.tool_calls: not supported; this server calls no tools",
        ),
        ({"messages": [{"role": "assistant", "refusal": "no"}]}, "messages.0.refusal: not supp"),
        ({"tools": [{"type": "function"}]}, "tools: not supported; this server calls no tools"),
        ({"tool_choice": "required"}, "tool_choice: not supported"),
        ({"functions": [{"name": "f"}]}, "functions: not supported"),
        ({"response_format": {"type": "json_schema"}}, "response_format: not supported"),
        ({"modalities": ["text", "audio"]}, "modalities: not supported; this server reads"),
        ({"audio": {"voice": "x"}}, "audio: not supported"),
        ({"web_search_options": {}}, "web_search_options: not supported"),
        (
            {"chat_template_kwargs": {"enable_thinking": True}},
            "chat_template_kwargs: unknown field",
        ),
        ({"echo": True}, "echo: unknown field"),
        ({"top_logprobs": 3}, "top_logprobs: needs logprobs"),
        ({"logprobs": 3}, "logprobs: "),
    ],
)
def test_wrong_conversations(http, changed, words):
    body = {"model": "small", "messages": [{"role": "user", "content": "x"}]} | changed
    check_error(http.post("/v1/chat/completions", json=body), 400, words)


def test_errors_name_the_field_and_its_kind(http):
    asked = {"model": "small", "messages": [{"role": "user", "content": "x"}]}
    answer = http.post("/v1/chat/completions", json=asked | {"tools": [{}]})
    error = check_error(answer, 400)
    assert (error["param"], error["code"]) == ("tools", "unsupported_value")
    answer = http.post("/v1/chat/completions", json=asked | {"temprature": 1})
    error = check_error(answer, 400)
    assert (error["param"], error["code"]) == ("temprature", "unknown_parameter")


NOTHING = {  # fields that ask for nothing, or for what the server does anyway
    "tools": [None, []],
    "tool_choice": [None, "none", "auto"],
    "response_format": [None, {"type": "text"}],
    "logit_bias": [None, {}],
    "stream_options": [None, {}, {"include_usage": None}],
    "metadata": [None, {}, {"run": "1"}],
    "store": [None, False, True],
    "user": ["me"],
    "service_tier": ["auto", "default"],
    "parallel_tool_calls": [True, False],
    "reasoning_effort": ["low"],
    "verbosity": ["medium"],
    "safety_identifier": ["me"],
    "prompt_cache_key": ["me"],
    "seed": [None],
    "stop": [None, []],
    "logprobs": [None, False],
    "repeat_penalty": [1, 1.0],
    "mirostat": [0],
    "cache_prompt": [True],
    "keep_alive": ["5m", -1],
    "guided_json": [None, "", {}],
    "ignore_eos": [False],
    "another": [None],
}
IN_CHAT = {
    "functions": [None, []],
    "function_call": [None, "none", "auto"],
    "modalities": [None, ["text"]],
    "audio": [None],
    "prediction": [None, {"type": "content", "content": "x"}],
    "moderation": [None],
    "web_search_options": [None],
    "top_logprobs": [None, 0],
    "max_tokens": [None],
    "max_completion_tokens": [None],
}
IN_COMPLETIONS = {
    "best_of": [None, 1],
    "suffix": [None, ""],
    "echo": [None, False],
    "max_tokens": [None],
}


def fields(*tables):
    return [(name, each) for table in tables for name, values in table.items() for each in values]


def test_what_means_nothing_is_accepted(http):
    completion = {"model": "small", "prompt": "x", "seed": 1, "temperature": 0}
    message = {"role": "user", "content": "x"}
    chat = {"model": "small", "messages": [message], "seed": 1, "max_tokens": 16}
    for path, asked, own in (
        ("/v1/completions", completion, IN_COMPLETIONS),
        ("/v1/chat/completions", chat, IN_CHAT),
    ):
        plain = http.post(path, json=asked).json()["choices"]
        for name, value in fields(NOTHING, own):
            changed = asked | {name: value} | ({"temperature": 0} if name == "seed" else {})
            answer = http.post(path, json=changed)
            assert answer.status_code == 200, (name, value, answer.text)
            same = name in ("max_tokens", "max_completion_tokens", "seed")
            assert same or answer.json()["choices"] == plain, (name, value)


def test_messages_may_have_what_earlier_responses_added(http):
    asked = {"model": "small", "seed": 1, "max_tokens": 4}
    plain = [
        {"role": "system", "content": "a"},
        {"role": "user", "content": "b"},
        {"role": "assistant", "content": ""},
        {"role": "tool", "content": "c"},
    ]
    added = {
        "annotations": [], "refusal": None, "audio": None, "tool_calls": None,
        "function_call": None, "name": "x", "reasoning_content": "hm", "id": "msg_1",
        "provider_specific_fields": {"x": 1}, "tool_call_id": "1",
    }  # fmt: skip
    part = {"type": "text", "text": "b", "cache_control": {"type": "ephemeral"}}
    full = [
        {"role": "developer", "content": "a"} | added,
        {"role": "user", "content": [part]} | added,
        {"role": "assistant", "content": None} | added | {"tool_calls": []},
        {"role": "function", "content": "c"} | added,
    ]
    answers = [
        http.post("/v1/chat/completions", json=asked | {"messages": messages})
        for messages in (plain, full)
    ]
    assert [answer.status_code for answer in answers] == [200, 200], answers[1].text
    texts = [answer.json()["choices"] for answer in answers]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("model", ["gpt-4", "", "../small", "\ud800", "x\x00y"])
def test_another_model(http, model):
    body = json.dumps({"model": model, "prompt": "x"})
    answer = http.post(
        "/v1/completions", content=body, headers={"Content-Type": "application/json"}
    )
    assert check_error(answer, 404, "not found")["code"] == "model_not_found"


@pytest.mark.parametrize("prompt", ["", "\x00", "a\x00b", "\ud800", "x\udfffy", "\u2581", "😀" * 5])
def test_unusual_prompts_are_accepted(http, prompt):
    body = json.dumps({"model": "small", "prompt": prompt, "max_tokens": 4, "stop": ["\udc00"]})
    answer = http.post(
        "/v1/completions", content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 200
    assert answer.json()["usage"]["completion_tokens"] == 4


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"[" * 50_000, b'{"model": "small"}', b"5", b'"x"', b"null", b"[]"],
)
def test_malformed_bodies(http, content):
    answer = http.post(
        "/v1/completions", content=content, headers={"Content-Type": "application/json"}
    )
    check_error(answer, 400)


def test_ten_megabytes(http):
    body = {"model": "small", "prompt": "x" * 10_000_000}
    check_error(http.post("/v1/completions", json=body), 413, "larger than 100000 bytes")


def test_an_endless_body_in_chunks(http):
    def parts():
        for _ in range(1000):
            yield b"x" * 10_000

    try:
        answer = http.post("/v1/completions", content=parts())
    except httpx.TransportError:  # the server closed the connection before all was sent
        return
    check_error(answer, 413)


@pytest.mark.parametrize(
    "path", ["/v1/nothing", "/%2e%2e/etc/passwd", "/page/..%2fapp.py", "/v1/models/../../x"]
)
def test_unknown_paths(http, path):
    check_error(http.get(path), 404)


def test_endpoints_of_openai_that_are_absent(http):
    for path in ("/v1/embeddings", "/v1/responses"):
        words = "this server has /v1/models, /v1/completions and /v1/chat/completions"
        check_error(http.post(path, json={"model": "small", "input": "x"}), 404, words)


@pytest.mark.parametrize(
    "path",
    ["/../../etc/passwd", "/page/../app.py", "/page/%2e%2e/app.py", "/page//etc/passwd", "/page/"],
)
def test_raw_paths_do_not_leave_the_page(address, path):
    assert exchange(address, f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").startswith(
        b"HTTP/1.1 404"
    )


def test_other_methods(http):
    check_error(http.get("/v1/completions"), 405)
    check_error(http.put("/v1/models"), 405)


def exchange(address, text, timeout=10.0):
    """Send raw bytes and return the answer."""
    url = urlsplit(address)
    with socket.create_connection((url.hostname, url.port), timeout=timeout) as connection:
        connection.sendall(text.encode("latin-1"))
        return connection.recv(65536)


def test_a_client_that_never_sends_its_body(address):
    head = (
        "POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        "Content-Length: 1000\r\n\r\n{"
    )
    started = time.monotonic()
    assert exchange(address, head).startswith(b"HTTP/1.1 408")
    assert time.monotonic() - started < 8


def test_attention_of_invalid_ids(http):
    check_error(http.post("/atlas/attention", json={"ids": []}), 400, "ids: ")
    check_error(
        http.post("/atlas/attention", json={"ids": [99999]}), 400, "ids: 99999 is not a token id"
    )
    check_error(http.post("/atlas/attention", json={"ids": "x"}), 400, "ids: ")


def test_other_host_names_are_refused_on_loopback(opened):
    with running(opened, hosts=("127.0.0.1", "localhost")) as address:
        assert httpx.get(f"{address}/health").status_code == 200
        assert httpx.get(f"{address}/health", headers={"Host": "evil.example"}).status_code == 400


def test_internal_errors_are_logged_and_not_sent(opened, monkeypatch, caplog):
    def fail(self, text):
        raise ZeroDivisionError("an internal detail")

    with running(opened) as address, monkeypatch.context() as patched:
        patched.setattr(type(opened), "encode", fail)
        with httpx.Client(base_url=address) as client:
            answer = client.post("/v1/completions", json={"model": "small", "prompt": "x"})
            error = check_error(answer, 500, "internal server error")
            assert error["type"] == "server_error"
            assert "detail" not in answer.text
            patched.undo()
            answer = client.post("/v1/completions", json={"model": "small", "prompt": "x"})
            assert answer.status_code == 200
    assert "an internal detail" in caplog.text


@pytest.mark.slow
def test_no_request_makes_the_server_fail(tokenizer, tmp_path):
    limits = ServerOptions(
        slots=4, queue_size=100, max_tokens=50, max_sequences=4, generation_timeout=5
    )
    with running(opened_model(tokenizer), limits) as address:
        run = subprocess.run(
            [
                sys.executable, "-m", "schemathesis.cli", "run", f"{address}/openapi.json",
                "--checks", CHECKS, "--max-examples", "40", "--seed", "1", "--no-color",
            ],
            cwd=tmp_path, env=os.environ, capture_output=True, text=True,
        )  # fmt: skip
    assert run.returncode == 0, run.stdout[-5000:] + run.stderr[-2000:]
    assert "8 selected / 8 total" in run.stdout
