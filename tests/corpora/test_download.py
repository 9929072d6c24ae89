import csv
import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from atlas.corpora import download as module
from atlas.corpora.download import download
from atlas.corpora.registry import Download
from atlas.errors import AtlasError

CONTENT = bytes(range(256)) * 4000


class Server(ThreadingHTTPServer):
    """Serves CONTENT at any path; faults are set by the tests."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, str | None]] = []
        self.statuses: list[int] = []  # answered first, one a request
        self.break_after: int | None = None  # bytes of the first answer
        self.content = CONTENT
        self.ranges = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        wanted = self.headers.get("Range")
        server.requests.append((self.path, wanted))
        if self.path.endswith("sources.csv"):
            return self.send_error(404)
        if server.statuses:
            return self.send_error(server.statuses.pop(0))
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        if not server.ranges:
            start = 0
        body = server.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if server.break_after is not None:
            body, server.break_after = body[: server.break_after], None
        self.wfile.write(body)
        return None

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.01)
    server = Server()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def file(server):
    return Download(
        "a.txt", f"{server.url}/a.txt", hashlib.sha256(CONTENT).hexdigest(), len(CONTENT)
    )


def fetch(file, tmp_path, mirror=None):
    folder = tmp_path / "raw"
    folder.mkdir(exist_ok=True)
    return download(file, folder, mirror, tmp_path / "unfinished")


def test_a_file_arrives_whole(server, file, tmp_path):
    assert fetch(file, tmp_path) == file.url
    assert (tmp_path / "raw/a.txt").read_bytes() == CONTENT
    assert not list((tmp_path / "unfinished").iterdir())


def test_a_broken_download_goes_on_where_it_was(server, file, tmp_path):
    server.break_after = 300_000
    fetch(file, tmp_path)
    assert (tmp_path / "raw/a.txt").read_bytes() == CONTENT
    assert [wanted for _, wanted in server.requests] == [None, "bytes=300000-"]


def test_what_an_earlier_run_received_is_used(server, file, tmp_path):
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / file.sha256).write_bytes(CONTENT[:1000])
    fetch(file, tmp_path)
    assert (tmp_path / "raw/a.txt").read_bytes() == CONTENT
    assert server.requests[0][1] == "bytes=1000-"


def test_a_server_without_ranges_sends_all_again(server, file, tmp_path):
    server.ranges = False
    server.break_after = 1000
    fetch(file, tmp_path)
    assert (tmp_path / "raw/a.txt").read_bytes() == CONTENT


def test_a_server_in_trouble_is_asked_again(server, file, tmp_path):
    server.statuses = [503, 500]
    fetch(file, tmp_path)
    assert len(server.requests) == 3


@pytest.mark.parametrize("status", [404, 403])
def test_a_refusal_is_final(server, file, tmp_path, status):
    server.statuses = [status] * 10
    with pytest.raises(AtlasError, match=f"'{status} .*ATLAS_MIRROR") as error:
        fetch(file, tmp_path)
    assert "\n" not in str(error.value)
    assert len(server.requests) == 1


def test_trouble_without_end_is_an_error(server, file, tmp_path):
    server.statuses = [500] * 10
    with pytest.raises(AtlasError, match="500"):
        fetch(file, tmp_path)
    assert len(server.requests) == module.TRIES


@pytest.mark.parametrize("content", [CONTENT[:-1] + b"x", CONTENT + b"more"])
def test_another_file_is_refused_and_not_kept(server, file, tmp_path, content):
    server.content = content
    with pytest.raises(AtlasError, match=r"a\.txt could not be fetched"):
        fetch(file, tmp_path)
    assert not list((tmp_path / "raw").iterdir())
    assert not list((tmp_path / "unfinished").iterdir())


def test_no_network_is_one_line_that_says_what_to_do(file, tmp_path):
    away = Download(file.name, "http://127.0.0.1:1/a.txt", file.sha256, file.bytes)
    with pytest.raises(AtlasError) as error:
        fetch(away, tmp_path)
    assert "\n" not in str(error.value)
    assert "ATLAS_MIRROR" in str(error.value)


@pytest.mark.parametrize("place", ["a.txt", "by-index/other-name", None])
def test_a_mirror_folder_is_looked_in_first(server, file, tmp_path, place):
    path = tmp_path / "mirror" / (place or file.sha256)
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    if place == "by-index/other-name":
        with (tmp_path / "mirror/sources.csv").open("w", newline="") as index:
            csv.writer(index).writerows(
                [["file", "url", "bytes", "sha256"], [place, "", 1, file.sha256]]
            )
    assert fetch(file, tmp_path, str(tmp_path / "mirror")) == str(path)
    assert (tmp_path / "raw/a.txt").read_bytes() == CONTENT
    assert not server.requests


def test_a_wrong_file_in_the_mirror_is_passed_over(server, file, tmp_path):
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror/a.txt").write_bytes(b"another")
    assert fetch(file, tmp_path, str(tmp_path / "mirror")) == file.url


def test_a_mirror_that_is_not_there_is_named(file, tmp_path):
    with pytest.raises(AtlasError, match="ATLAS_MIRROR=/nowhere: no such folder"):
        fetch(file, tmp_path, "/nowhere")


def test_a_mirror_may_be_a_url(server, file, tmp_path):
    away = Download(file.name, "http://127.0.0.1:1/a.txt", file.sha256, file.bytes)
    assert fetch(away, tmp_path, server.url) == f"{server.url}/{file.sha256}"
