"""Downloads that end with one line, as what comes is not the file or never ends."""

import httpx
import pytest

from atlas.corpora import download as module
from atlas.corpora import transfer
from atlas.corpora.registry import Download
from tests.corpora.faulty_server import CONTENT, Answer
from tests.corpora.receiving import arrived, fetch, pinned, refusal, unpinned

HTML = b"\n<!DOCTYPE html><html><body>Please log in</body></html>"


def test_who_asks_for_hours_is_not_waited_for(server, file, tmp_path, pauses):
    server.script = [Answer(503, {"Retry-After": "7200"})]
    assert "asks to wait 7200 s" in refusal(tmp_path, file)
    assert pauses == []


@pytest.mark.parametrize("status", [404, 410, 403, 401])
def test_a_refusal_is_final(server, file, tmp_path, status):
    server.script = [Answer(status)] * 10
    assert f"{file.urls[0]} returned {status}" in refusal(tmp_path, file)
    assert len(server.requests) == 1


def test_trouble_without_end_is_an_error(server, file, tmp_path):
    server.script = [Answer(500)] * 10
    assert "returned 500 Internal Server Error (tried 4 times)" in refusal(tmp_path, file)
    assert len(server.requests) == transfer.TRIES


def test_a_body_that_always_breaks_off_is_an_error(server, file, tmp_path):
    server.script = [Answer(break_after=10)] * 10
    assert "broke off" in refusal(tmp_path, file)


def test_a_silent_server_is_an_error(server, file, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT", httpx.Timeout(0.05))
    server.script = [Answer(silence=0.3)] * 10
    assert "broke off: ReadTimeout (tried 4 times)" in refusal(tmp_path, file)


def test_a_trickle_is_an_error(server, file, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "SPEED_WINDOW", 0.05)
    server.script = [Answer(pace=0.01)] * 10
    assert "too slow" in refusal(tmp_path, file)


def test_an_unknown_host_is_one_line(server, tmp_path):
    away = Download("a.txt", ("http://no-such-host.invalid/a.txt",))
    assert "can't be reached" in refusal(tmp_path, away)


@pytest.mark.parametrize("headers", [{}, {"Content-Type": "text/html; charset=utf-8"}])
def test_a_web_page_is_no_text(server, file, tmp_path, headers):
    server.script = [Answer(content=HTML, headers=headers)]
    assert "sends a web page" in refusal(tmp_path, file)


def test_a_login_page_is_named(server, tmp_path):
    server.script = [
        Answer(302, {"Location": "/login"}),
        Answer(content=HTML, headers={"Content-Type": "text/html"}),
    ]
    assert f"redirected to {server.url}/login" in refusal(tmp_path, unpinned(server))


def test_a_page_is_right_where_one_is_asked_for(server, tmp_path):
    server.script = [Answer(content=HTML, headers={"Content-Type": "text/html"})]
    fetch(tmp_path, unpinned(server, "a.html"))
    assert arrived(tmp_path, "a.html") == HTML


def test_a_redirect_without_end_is_refused(server, file, tmp_path):
    server.script = [Answer(302, {"Location": "/a.txt"})] * 30
    assert "redirects" in refusal(tmp_path, file)


def test_another_content_is_refused_and_not_kept(server, tmp_path):
    file = pinned(server)
    server.files = {"/a.txt": CONTENT[:-1] + b"x"}
    assert f"expected {file.sha256}" in refusal(tmp_path, file)
    assert not list((tmp_path / "unfinished").glob("*.part"))


@pytest.mark.parametrize("announced", [True, False])
def test_more_than_expected_is_refused(server, tmp_path, announced):
    server.script = [Answer(content=CONTENT * 2, announced=announced)]
    assert "sends more than" in refusal(tmp_path, pinned(server))


@pytest.mark.parametrize("announced", [True, False])
def test_no_file_may_be_too_large(server, tmp_path, monkeypatch, announced):
    monkeypatch.setattr(transfer, "MAX_BYTES", 1000)
    server.script = [Answer(announced=announced)]
    assert "sends more than the 1000 bytes" in refusal(tmp_path, unpinned(server))


def test_an_empty_file_is_refused(server, tmp_path):
    server.script = [Answer(content=b"")]
    assert "provides an empty file" in refusal(tmp_path, unpinned(server))


def test_a_packing_that_is_not_known_is_refused(server, file, tmp_path):
    server.script = [Answer(headers={"Content-Encoding": "br"})]
    assert "encoded as br" in refusal(tmp_path, file)


def test_a_file_that_is_nowhere_says_so_once(server, tmp_path):
    server.files = {}
    message = refusal(tmp_path, unpinned(server, "a.txt", "b.txt", "c.txt"))
    assert f"{server.url}/c.txt returned 404 Not Found, as did 2 others" in message
