"""`atlas serve` as a user types it."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

import httpx
import pytest

from tests.code_walk import ROOT
from tests.export.models import SHAPES, store
from tests.tools.console import atlas

RUN = [sys.executable, "-c", "from atlas.tools.cli import run; run()", "serve"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("serve")
    store(folder / "mine", SHAPES["llama"], tokenizer)
    tokenizer.save(folder / "tokenizer")
    return folder


@contextmanager
def serving(folder, *options, **environment):
    """Start a server; yield its process and address; always end it."""
    process = subprocess.Popen(
        [*RUN, "--model", str(folder / "mine"), "--port", "0", *options],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"} | environment,
    )
    try:
        line = process.stdout.readline()
        if not line.startswith("mine (PyTorch): page at http://"):
            process.kill()  # else its stderr would never end
            pytest.fail(line + process.stderr.read())
        yield process, line.split()[4].rstrip(",")
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_stopped(folder, how):
    with serving(folder, "--slots", "2") as (process, address):
        assert address.startswith("http://127.0.0.1:")
        page = httpx.get(f"{address}/")
        assert "Atlas" in page.text
        assert "default-src 'none'" in page.headers["Content-Security-Policy"]
        assert httpx.get(f"{address}/v1/models").json()["data"][0]["id"] == "mine"
        refused = httpx.get(f"{address}/", headers={"Host": "elsewhere.example"})
        assert refused.status_code == 400
        assert "Host" in refused.json()["error"]["message"]
        about = httpx.get(f"{address}/atlas/model").json()
        assert about["curves"] == {}
        assert (about["context_length"], about["has_attention"]) == (96, True)
        process.send_signal(how)
        _, error = process.communicate(timeout=20)
        assert "Traceback" not in error


@pytest.mark.slow
@pytest.mark.parametrize(
    "signals", [(signal.SIGINT,), (signal.SIGTERM,), (signal.SIGINT, signal.SIGINT)]
)
def test_open_streams_end_with_an_error_at_shutdown(folder, signals):
    body = {"model": "mine", "prompt": "the", "max_tokens": 4000, "logit_bias": {"1": -100}}
    with (
        serving(folder, "--slots", "2") as (process, address),
        httpx.stream("POST", f"{address}/v1/completions", json=body | {"stream": True}) as answer,
        ExitStack() as stack,
    ):
        lines = answer.iter_lines()
        next(lines)
        url = urlsplit(address)
        for start in (
            b"",
            b"GET / HT",
            b"POST /v1/completions HTTP/1.1\r\nContent-Length: 9\r\n\r\n",
        ):
            slow = stack.enter_context(socket.create_connection((url.hostname, url.port)))
            slow.sendall(start)
        for each in signals:
            process.send_signal(each)
            time.sleep(0.1)
        *_, error, _, done, _ = lines
        assert '"code":"stopping"' in error
        assert done == "data: [DONE]"
        _, printed = process.communicate(timeout=20)
        assert printed == ""


@pytest.mark.slow
@pytest.mark.parametrize("host", ["::1", "127.0.0.2", "localhost"])
def test_it_answers_to_the_host_given(folder, host):
    with serving(folder, "--host", host) as (_, address):
        assert httpx.get(f"{address}/health").status_code == 200
        assert httpx.head(f"{address}/health").status_code == 200


@pytest.mark.slow
def test_open_to_others_with_a_key_or_a_warning(folder):
    with serving(folder, "--host", "0.0.0.0", ATLAS_API_KEY="k") as (process, address):
        port = address.rsplit(":", 1)[1]
        assert httpx.get(f"http://127.0.0.1:{port}/v1/models").status_code == 401
        for given in ("Bearer k", "bearer k"):
            headers = {"Authorization": given}
            answer = httpx.get(f"http://127.0.0.1:{port}/v1/models", headers=headers)
            assert answer.status_code == 200
        process.terminate()
        assert "anyone" not in process.communicate(timeout=20)[1]
    with serving(folder, "--host", "0.0.0.0") as (process, _):
        process.terminate()
        assert "warning: anyone who can reach this address" in process.communicate(timeout=20)[1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--host", ""), "error: --host is empty"),
        (("--key", ""), "error: --key is empty"),
        (("--key", " \n"), "error: --key is empty"),
        (("--key", "schl\u00fcssel"), "error: --key: use ASCII"),
        (("--key", "a\nb"), "error: --key: use ASCII"),
        (
            ("--slots", "100000000"),
            "error: --slots 100000000: not enough memory; use fewer",
        ),
    ],
)
def test_impossible_options_are_refused_in_one_line(folder, options, words):
    code, _, error = atlas("serve", "--model", str(folder / "mine"), "--port", "0", *options)
    assert code == 1
    assert error.startswith(words)
    assert error.count("\n") == 1


@pytest.mark.slow
def test_a_taken_address_is_refused_in_one_line(folder):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [*RUN, "--model", str(folder / "mine"), "--port", port],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: --host 127.0.0.1 --port {port}: address not available")
    assert done.stderr.count("\n") == 1
