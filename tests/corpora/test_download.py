"""Downloads from a server with faults."""

import errno
import gzip
import os
import signal
import subprocess
import sys
import time

import httpx
import pytest

from atlas.corpora import download as module
from atlas.corpora.download import Download
from tests.corpora.downloading import fetch, pinned, received, refusal, unpinned
from tests.corpora.faulty_server import CONTENT, Answer


def test_a_file_arrives_whole(server, file, tmp_path):
    assert fetch(tmp_path, file) == {"a.txt": file.urls[0]}
    assert received(tmp_path) == CONTENT


def test_a_broken_download_resumes(server, file, tmp_path):
    server.script = [Answer(break_after=300_000), Answer(break_after=500_000)]
    fetch(tmp_path, file)
    assert received(tmp_path) == CONTENT
    assert server.ranges_asked() == [None, "bytes=300000-", "bytes=800000-"]


def test_a_broken_body_without_length_is_noticed(server, tmp_path):
    server.script = [Answer(break_after=300_000, announced=False)]
    fetch(tmp_path, pinned(server))
    assert received(tmp_path) == CONTENT
    assert server.ranges_asked() == [None, "bytes=300000-"]


def test_a_body_without_length_is_accepted(server, file, tmp_path):
    content = CONTENT if file.sha256 is None else gzip.compress(CONTENT)
    server.script = [Answer(content=content, announced=False)]
    fetch(tmp_path, file)
    assert received(tmp_path) == CONTENT
    assert len(server.requests) == 1


def test_content_range_is_optional(server, file, tmp_path):
    server.sends_content_range = False
    server.script = [Answer(break_after=300_000)]
    fetch(tmp_path, file)
    assert received(tmp_path) == CONTENT
    assert server.ranges_asked() == [None, "bytes=300000-"]


def test_a_wrong_range_is_not_used(server, file, tmp_path):
    server.range_offset = 5
    server.script = [Answer(break_after=300_000)]
    fetch(tmp_path, file)
    assert received(tmp_path) == CONTENT
    assert server.ranges_asked() == [None, "bytes=300000-", None]


def test_a_later_run_resumes(server, file, tmp_path):
    server.script = [Answer(break_after=1000), Answer(500), Answer(500), Answer(500)]
    assert "returned 500" in refusal(tmp_path, file)
    fetch(tmp_path, file)
    assert received(tmp_path) == CONTENT
    assert server.ranges_asked()[-1] == "bytes=1000-"


def test_a_server_without_ranges_sends_everything_again(server, file, tmp_path):
    server.ranges = False
    server.script = [Answer(break_after=1000)]
    fetch(tmp_path, file)
    assert received(tmp_path) == CONTENT


def test_a_changed_file_is_fetched_again(server, tmp_path):
    new = CONTENT[::-1]
    server.script = [Answer(break_after=1000), Answer(500), Answer(500), Answer(500)]
    refusal(tmp_path, unpinned(server))
    server.etag = '"2"'
    server.files = {"/a.txt": new}
    fetch(tmp_path, unpinned(server))
    assert received(tmp_path) == new
    assert server.requests[-1].if_range == '"1"'


@pytest.mark.parametrize("etag", [None, 'W/"1"'])
def test_an_unpinned_file_without_strong_etag_starts_again(server, tmp_path, etag):
    server.etag = etag
    server.script = [Answer(break_after=1000)]
    fetch(tmp_path, unpinned(server))
    assert received(tmp_path) == CONTENT
    assert server.ranges_asked() == [None, None]


def test_a_pinned_file_resumed_from_another_version_is_fetched_again(server, tmp_path):
    server.etag = None
    server.script = [Answer(content=CONTENT[::-1], break_after=1000)]
    fetch(tmp_path, pinned(server))
    assert received(tmp_path) == CONTENT
    assert server.ranges_asked() == [None, "bytes=1000-", None]


def test_a_partial_file_that_is_too_long_is_dropped(server, file, tmp_path):
    server.script = [Answer(content=CONTENT + bytes(500), break_after=len(CONTENT) + 200)]
    fetch(tmp_path, file)
    assert received(tmp_path) == CONTENT
    assert server.ranges_asked() == [None, f"bytes={len(CONTENT) + 200}-", None]


def test_a_complete_partial_file_is_used(server, file, tmp_path):
    server.script = [Answer(content=CONTENT + b"x", break_after=len(CONTENT))]
    fetch(tmp_path, file)
    assert received(tmp_path) == CONTENT
    assert len(server.requests) == 2


def test_pauses_between_retries_double(server, file, tmp_path, pauses):
    server.script = [Answer(503), Answer(500), Answer(429)]
    fetch(tmp_path, file)
    assert pauses == [1.0, 2.0, 4.0]


@pytest.mark.parametrize(
    ("asked", "pause"),
    [("7", 7.0), ("0", 1.0), ("soon", 1.0), ("Wed, 21 Oct 2015 07:28:00 GMT", 1.0)],
)
def test_retry_after_is_respected(server, file, tmp_path, pauses, asked, pause):
    server.script = [Answer(429, {"Retry-After": asked})]
    fetch(tmp_path, file)
    assert pauses == [pause]


def test_redirects_are_followed_but_the_original_url_is_kept(server, file, tmp_path):
    server.script = [Answer(302, {"Location": "/elsewhere"})]
    assert fetch(tmp_path, file) == {"a.txt": file.urls[0]}
    assert received(tmp_path) == CONTENT


def test_an_unrequested_gzip_encoding_is_unpacked(server, file, tmp_path):
    server.script = [Answer(content=gzip.compress(CONTENT), headers={"Content-Encoding": "gzip"})]
    fetch(tmp_path, file)
    assert received(tmp_path) == CONTENT


def test_later_urls_are_only_tried_for_missing_files(server, tmp_path):
    file = unpinned(server, "a.txt", "b.txt", "c.txt")
    server.files = {"/b.txt": b"bee"}
    assert fetch(tmp_path, file) == {"a.txt": f"{server.url}/b.txt"}
    assert received(tmp_path) == b"bee"
    server.script = [Answer(500)] * 4
    (tmp_path / "raw/a.txt").unlink()
    refusal(tmp_path, file)
    assert {request.path for request in server.requests[2:]} == {"/a.txt"}


def test_a_failure_keeps_the_other_files(server, tmp_path):
    files = [pinned(server, f"{name}.txt", name.encode()) for name in "abcdefg"]
    server.files = {f"/{name}.txt": name.encode() for name in "ag"}
    message = refusal(tmp_path, *files)
    assert message.startswith("5 of 7 files could not be fetched: b.txt (")
    assert "d.txt" in message
    assert "; and 2 more." in message
    assert "e.txt" not in message
    server.requests.clear()
    server.files = {f"/{name}.txt": name.encode() for name in "bcdef"}  # a and g have arrived
    assert list(fetch(tmp_path, *files)) == [f"{name}.txt" for name in "abcdefg"]
    assert sorted(request.path for request in server.requests) == [
        f"/{name}.txt" for name in "bcdef"
    ]
    assert received(tmp_path, "g.txt") == b"g"


def test_downloads_are_concurrent_up_to_a_limit(server, tmp_path):
    server.script = [Answer(silence=0.05)] * 12
    fetch(tmp_path, *(pinned(server, f"{number}.txt") for number in range(12)))
    assert 1 < server.max_concurrent <= module.MAX_CONCURRENT


def test_a_full_disk_raises(server, file, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "_accept", full)
    with pytest.raises(OSError, match="No space left"):
        fetch(tmp_path, file)


def test_ctrl_c_stops_concurrent_and_keeps_partial_files(server, tmp_path):
    server.script = [Answer(break_after=5000), Answer(silence=60)]
    code = (
        "import sys; from pathlib import Path\n"
        "from atlas.corpora.download import download\n"
        "from atlas.corpora.download import Download\n"
        "file = Download('a.txt', (sys.argv[1],))\n"
        "Path(sys.argv[2], 'raw').mkdir()\n"
        "download([file], Path(sys.argv[2], 'raw'), None, Path(sys.argv[2], 'unfinished'))\n"
    )
    command = [sys.executable, "-c", code, f"{server.url}/a.txt", str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 20
    while len(server.requests) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) != 0  # the server is silent for longer
    (part,) = (tmp_path / "unfinished").glob("*.part")
    assert part.read_bytes() == CONTENT[:5000]


HTML = b"\n<!DOCTYPE html><html><body>Please log in</body></html>"


def test_a_long_requested_pause_is_an_error(server, file, tmp_path, pauses):
    server.script = [Answer(503, {"Retry-After": "7200"})]
    assert "asks to wait 7200 s" in refusal(tmp_path, file)
    assert pauses == []


@pytest.mark.parametrize("status", [404, 410, 403, 401])
def test_client_errors_are_not_retried(server, file, tmp_path, status):
    server.script = [Answer(status)] * 10
    assert f"{file.urls[0]} returned {status}" in refusal(tmp_path, file)
    assert len(server.requests) == 1


def test_repeated_server_errors_are_an_error(server, file, tmp_path):
    server.script = [Answer(500)] * 10
    assert "returned 500 Internal Server Error (tried 4 times)" in refusal(tmp_path, file)
    assert len(server.requests) == module.TRIES


def test_a_body_that_always_breaks_is_an_error(server, file, tmp_path):
    server.script = [Answer(break_after=10)] * 10
    assert "broke off" in refusal(tmp_path, file)


def test_a_silent_server_is_an_error(server, file, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT", httpx.Timeout(0.05))
    server.script = [Answer(silence=0.3)] * 10
    assert "broke off: ReadTimeout (tried 4 times)" in refusal(tmp_path, file)


def test_a_slow_server_is_an_error(server, file, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SPEED_WINDOW", 0.05)
    server.script = [Answer(pace=0.01)] * 10
    assert "too slow" in refusal(tmp_path, file)


def test_an_unknown_host_is_one_line(server, tmp_path):
    away = Download("a.txt", ("http://no-such-host.invalid/a.txt",))
    assert "can't be reached" in refusal(tmp_path, away)


@pytest.mark.parametrize("headers", [{}, {"Content-Type": "text/html; charset=utf-8"}])
def test_a_web_page_is_rejected(server, file, tmp_path, headers):
    server.script = [Answer(content=HTML, headers=headers)]
    assert "sends a web page" in refusal(tmp_path, file)


def test_a_redirect_to_a_login_page_is_named(server, tmp_path):
    server.script = [
        Answer(302, {"Location": "/login"}),
        Answer(content=HTML, headers={"Content-Type": "text/html"}),
    ]
    assert f"redirected to {server.url}/login" in refusal(tmp_path, unpinned(server))


def test_an_html_file_is_accepted(server, tmp_path):
    server.script = [Answer(content=HTML, headers={"Content-Type": "text/html"})]
    fetch(tmp_path, unpinned(server, "a.html"))
    assert received(tmp_path, "a.html") == HTML


def test_endless_redirects_are_an_error(server, file, tmp_path):
    server.script = [Answer(302, {"Location": "/a.txt"})] * 30
    assert "redirects" in refusal(tmp_path, file)


def test_a_wrong_checksum_is_rejected(server, tmp_path):
    file = pinned(server)
    server.files = {"/a.txt": CONTENT[:-1] + b"x"}
    assert f"expected {file.sha256}" in refusal(tmp_path, file)
    assert not list((tmp_path / "unfinished").glob("*.part"))


@pytest.mark.parametrize("announced", [True, False])
def test_too_many_bytes_are_rejected(server, tmp_path, announced):
    server.script = [Answer(content=CONTENT * 2, announced=announced)]
    assert "sends more than" in refusal(tmp_path, pinned(server))


@pytest.mark.parametrize("announced", [True, False])
def test_unpinned_files_have_a_size_limit(server, tmp_path, monkeypatch, announced):
    monkeypatch.setattr(module, "MAX_BYTES", 1000)
    server.script = [Answer(announced=announced)]
    assert "sends more than the 1000 bytes" in refusal(tmp_path, unpinned(server))


def test_an_empty_file_is_rejected(server, tmp_path):
    server.script = [Answer(content=b"")]
    assert "provides an empty file" in refusal(tmp_path, unpinned(server))


def test_an_unknown_encoding_is_rejected(server, file, tmp_path):
    server.script = [Answer(headers={"Content-Encoding": "br"})]
    assert "encoded as br" in refusal(tmp_path, file)


def test_a_missing_file_is_reported_once(server, tmp_path):
    server.files = {}
    message = refusal(tmp_path, unpinned(server, "a.txt", "b.txt", "c.txt"))
    assert f"{server.url}/c.txt returned 404 Not Found, as did 2 others" in message
