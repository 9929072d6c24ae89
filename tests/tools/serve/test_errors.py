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
        ({"temprature": 1}, "temprature: unknown field"),
        ({"tools": []}, "tools: unknown field"),
        ({"echo": True}, "echo: "),
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
        ({"top_logprobs": 3}, "top_logprobs: needs logprobs"),
        ({"logprobs": 3}, "logprobs: "),
    ],
)
def test_wrong_conversations(http, changed, words):
    body = {"model": "small", "messages": [{"role": "user", "content": "x"}]} | changed
    check_error(http.post("/v1/chat/completions", json=body), 400, words)


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
