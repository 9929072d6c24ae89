"""The app itself, without a socket: any headers, paths and methods get an answer."""

import asyncio
import json
import logging
import resource
from contextlib import ExitStack, contextmanager
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas.tools.serve.app import LOCAL_HOSTS, OTHER_FILES, create_app, with_enough_connections
from atlas.tools.serve.engine import ServerOptions

KEY = "s3cret"
PATHS = (
    "/", "/health", "/metrics", "/openapi.json", "/v1/models", "/v1/models/small", "/atlas/model",
    "/page/main.js", "/page/page.css",
)  # fmt: skip
OTHER_PATHS = ("/v1/completions", "/v1/chat/completions", "/atlas/attention", "/page/", "/x")
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "BREW", "get", "")
HEADERS = (
    b"host", b"authorization", b"content-length", b"transfer-encoding", b"content-type", b"origin",
    b"accept-encoding", b"accept", b"range", b"if-range", b"if-none-match", b"if-modified-since",
    b"cookie", b"connection", b"upgrade", b"expect", b"x-forwarded-for", b"traceparent", b"",
    b"\xff",
)  # fmt: skip
VALUES = (
    b"[", b"[::1", b"]", b"[::1]:8000", b"127.0.0.1", b"localhost:99999", b"a@127.0.0.1",
    b"\xc3\xa9", b"null",
    b"Bearer", b"Bearer ", b"Bearer s3cret", b"Basic \xff", b"-1", b"9" * 5000, b"chunked",
    b"application/json", b"application/json; charset=nothing", b"text/plain; charset=\xff",
    b"multipart/form-data", b"multipart/form-data; boundary=", b"bytes=0-0", b"bytes=5-1,-",
    b"gzip;q=x, *;q=-1", b"Sun, 99 Foo 9999 99:99:99 GMT", b'W/"', b"x" * 100_000, b",;=\"'",
)  # fmt: skip


class App:
    """An app whose engine runs, called as a server calls it."""

    def __init__(self, opened, stack: ExitStack, **options) -> None:
        self._app = create_app(opened, ServerOptions(**options))
        self._runner = stack.enter_context(asyncio.Runner())
        lifespan = self._app.router.lifespan_context(self._app)
        self._runner.run(lifespan.__aenter__())
        stack.callback(lambda: self._runner.run(lifespan.__aexit__(None, None, None)))

    def ask(self, path, method="GET", headers=(), body=b""):
        """Return status, headers and body of a response."""
        sent = []
        requests = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive():
            return requests.pop() if requests else await asyncio.Event().wait()

        async def send(message):
            sent.append(message)

        path, _, query = path.partition("?")
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method,
            "scheme": "http", "path": unquote(path), "raw_path": path.encode(),
            "query_string": query.encode("utf-8", "replace"), "root_path": "",
            "headers": list(headers), "client": ("127.0.0.1", 5), "server": ("127.0.0.1", 80),
        }  # fmt: skip
        self._runner.run(asyncio.wait_for(self._app(scope, receive, send), 20))
        start, *bodies = sent
        received = b"".join(message.get("body", b"") for message in bodies)
        return start["status"], dict(start["headers"]), received


@pytest.fixture(scope="module")
def app(opened):
    with ExitStack() as stack:
        yield App(opened, stack, hosts=LOCAL_HOSTS)


@pytest.fixture(scope="module")
def locked(opened):
    with ExitStack() as stack:
        yield App(opened, stack, key=KEY)


@contextmanager
def nothing_logged():
    records = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = records.append
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
    assert records == []


LOCAL = [(b"host", b"127.0.0.1:8000")]
HEADER = st.tuples(
    st.sampled_from(HEADERS), st.one_of(st.sampled_from(VALUES), st.binary(max_size=30))
)
PATH = st.one_of(
    st.sampled_from(PATHS + OTHER_PATHS),
    st.tuples(
        st.sampled_from(("/", "/page/", "/v1/models/", "/page")),
        st.lists(
            st.one_of(
                st.sampled_from(
                    ("%00", "..%2f", "%2e%2e/", "//", "%ff", "%", "%0d%0a", "%1b[31m", "?a=%", "*")
                ),
                st.text(max_size=5).map(lambda text: text.encode("utf-8", "replace").decode()),
            ),
            max_size=4,
        ).map("".join),
    ).map("".join),
    st.just("/page/" + "a" * 5000),
    st.just("http://evil.example/v1/models"),
    st.just("*"),
    st.just(""),
)


@settings(max_examples=60)
@given(PATH, st.sampled_from(METHODS), st.lists(HEADER, max_size=4), st.binary(max_size=20))
def test_no_request_is_a_server_error(app, locked, path, method, headers, body):
    for server, usual in (
        (app, LOCAL),
        (locked, [(b"authorization", b"Bearer s3cret")]),
        (app, []),
        (locked, []),
    ):
        with nothing_logged():
            status, answered, _ = server.ask(path, method, [*usual, *headers], body)
        assert status in (200, 206, 304, 307, 400, 401, 404, 405, 413, 416)
        assert answered[b"x-content-type-options"] == b"nosniff"
        assert b"default-src 'none'" in answered[b"content-security-policy"]


@pytest.mark.parametrize("path", [*PATHS, "/nothing", "/v1/models/other"])
def test_head_answers_as_get_without_a_body(app, path):
    status, headers, body = app.ask(path, "GET", LOCAL)
    assert body
    assert status == (200 if path in PATHS else 404)
    status_of_head, headers_of_head, nothing = app.ask(path, "HEAD", LOCAL)
    assert (status_of_head, nothing) == (status, b"")
    if path not in ("/metrics", "/nothing"):  # they change: counters, and the name of the method
        assert headers_of_head == headers
    assert app.ask("/v1/completions", "HEAD", LOCAL)[0] == 405


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        (b"localhost", True),
        (b"LOCALHOST:8000", True),
        (b"127.0.0.1:8000", True),
        (b"[::1]", True),
        (b"[::1]:8000", True),
        (b"127.0.0.1:", True),
        (b"", False),
        (b"[", False),
        (b"[::1", False),
        (b"::1", False),
        (b"]127.0.0.1[", False),
        (b"evil.example", False),
        (b"127.0.0.1.evil.example", False),
        (b"evil.example@127.0.0.1", False),
        (b"127.0.0.1/evil", False),
        (b"127.0.0.1:80a", False),
        (b"127.0.0.1\x00", False),
        (b"\xff\xfe", False),
    ],
)
def test_only_local_hosts(app, host, allowed):
    status, _, body = app.ask("/health", headers=[(b"host", host)])
    assert status == (200 if allowed else 400)
    assert allowed or "Host" in json.loads(body)["error"]["message"]


def test_a_missing_or_repeated_host_is_refused(app):
    for headers in ([], LOCAL * 2, [*LOCAL, (b"host", b"evil.example")]):
        assert app.ask("/health", headers=headers)[0] == 400


@pytest.mark.parametrize(
    ("value", "status"),
    [
        (b"Bearer s3cret", 200),
        (b"bearer s3cret", 200),
        (b"Bearer s3cret ", 200),
        (b"Bearer  s3cret", 200),
        (b" \tBearer\ts3cret\t ", 200),
        (b"Bearer s3cre", 401),
        (b"Bearer s3crets", 401),
        (b"Bearer s3 cret", 401),
        (b"Bearer", 401),
        (b"Bearer ", 401),
        (b"s3cret", 401),
        (b"Basic s3cret", 401),
        (b"Bearers3cret", 401),
        (b"Bearer \xff", 401),
        (b"", 401),
    ],
)
def test_keys(locked, value, status):
    answered, headers, _ = locked.ask("/v1/models", headers=[(b"authorization", value)])
    assert answered == status
    assert (b"www-authenticate" in headers) == (status == 401)


def test_a_repeated_or_missing_key_is_refused(locked):
    good = (b"authorization", b"Bearer s3cret")
    for headers in ([], [good, good], [good, (b"authorization", b"Bearer x")]):
        assert locked.ask("/v1/models", headers=headers)[0] == 401


@pytest.mark.parametrize(
    ("slots", "files", "expected"),
    [
        (16, 100_000, (512, 256)),
        (500, 100_000, (2256, 1128)),
        (16, 200, (68, 256)),
        (16, 0, (1, 256)),
    ],
)
def test_connections_fit_the_sequences_and_the_open_files(monkeypatch, slots, files, expected):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (files, files))
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)
    options = with_enough_connections(ServerOptions(slots=slots))
    assert (options.max_connections, options.max_connections_per_client) == expected
    assert expected == (1, 256) or 2 * options.max_connections <= files - OTHER_FILES
