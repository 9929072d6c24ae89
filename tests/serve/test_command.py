"""`atlas serve` as it is typed."""

import os
import signal
import socket
import subprocess
import sys

import httpx
import pytest

from tests.code_walk import ROOT
from tests.export.models import SHAPES, store

RUN = [sys.executable, "-c", "from atlas.cli import run; run()", "serve"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("serve")
    store(folder / "mine", SHAPES["llama"], tokenizer)
    tokenizer.save(folder / "tokenizer")
    return folder


def serve(folder, *options, **environment):
    process = subprocess.Popen(
        [*RUN, "--model", str(folder / "mine"), "--port", "0", *options],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"} | environment,
    )
    line = process.stdout.readline()
    assert line.startswith("mine (Atlas): http://"), line + process.stderr.read()
    return process, line.split()[2]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_stopped(folder, how):
    process, address = serve(folder, "--slots", "2")
    assert address.startswith("http://127.0.0.1:")
    page = httpx.get(f"{address}/")
    assert "Atlas" in page.text
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert httpx.get(f"{address}/v1/models").json()["data"][0]["id"] == "mine"
    assert httpx.get(f"{address}/", headers={"Host": "elsewhere.example"}).status_code == 400
    about = httpx.get(f"{address}/atlas/model").json()
    assert about["curves"] == {}
    assert (about["context_length"], about["tells_attention"]) == (96, True)
    process.send_signal(how)
    _, error = process.communicate(timeout=20)
    assert "Traceback" not in error


def test_for_others_it_wants_a_key_or_says_that_it_has_none(folder):
    process, address = serve(folder, "--host", "0.0.0.0", ATLAS_API_KEY="k")
    port = address.rsplit(":", 1)[1]
    assert httpx.get(f"http://127.0.0.1:{port}/v1/models").status_code == 401
    given = {"Authorization": "Bearer k"}
    assert httpx.get(f"http://127.0.0.1:{port}/v1/models", headers=given).status_code == 200
    process.terminate()
    assert "anybody" not in process.communicate(timeout=20)[1]
    process, _ = serve(folder, "--host", "0.0.0.0")
    process.terminate()
    assert "note: anybody who reaches this address" in process.communicate(timeout=20)[1]


def test_an_address_that_is_taken_is_refused_in_one_line(folder):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [*RUN, "--model", str(folder / "mine"), "--port", port],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: --host 127.0.0.1 --port {port}: can't be had")
    assert done.stderr.count("\n") == 1
