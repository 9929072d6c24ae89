"""Silent, slow and endless clients lose their connection, and don't shut out others."""

import json
import socket
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from urllib.parse import urlsplit

import httpx
import pytest

from atlas.tools.serve.connection import GRACE_SECONDS, MAX_HEADER_BYTES, client_network
from atlas.tools.serve.engine import ServerOptions
from tests.tools.serve.support import running

HOST = b"Host: 127.0.0.1\r\n"
HEALTH = b"GET /health HTTP/1.1\r\n" + HOST + b"\r\n"
POST = b"POST /v1/completions HTTP/1.1\r\nContent-Type: application/json\r\n" + HOST
LONG = {"model": "small", "prompt": "the", "max_tokens": 10**6, "seed": 1}
LIMITS = ServerOptions(
    slots=2,
    queue_size=20,
    max_tokens=10**6,
    header_timeout=0.5,
    body_timeout=0.5,
    reader_timeout=0.5,
)
PATIENT_CONNECTIONS = 20
CLIENTS = 8


@pytest.fixture(scope="module")
def address(opened):
    with running(opened, LIMITS) as address:
        yield address


@pytest.fixture(scope="module")
def patient(opened):
    with running(
        opened,
        LIMITS,
        header_timeout=60,
        body_timeout=60,
        max_connections_per_client=PATIENT_CONNECTIONS,
    ) as address:
        yield address


@contextmanager
def connected(address, data=b"", receive_buffer=None):
    url = urlsplit(address)
    with socket.socket() as connection:
        connection.settimeout(10)
        if receive_buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.connect((url.hostname, url.port))
        connection.sendall(data)
        yield connection


def read(connection):
    """Read to the end, however the server ends it."""
    received = b""
    with suppress(ConnectionResetError):
        while data := connection.recv(1 << 16):
            received += data
    return received


def error_of(response):
    """The status and message of one error response."""
    head, _, body = response.partition(b"\r\n\r\n")
    assert b"nosniff" in head
    assert b"connection: close" in head
    return int(head.split()[1]), json.loads(body)["error"]["message"]


def drip(connection, byte):
    """Send one byte again and again; return the seconds until the server closes."""
    started = time.monotonic()
    connection.settimeout(0.05)
    while True:
        try:
            connection.sendall(byte)
            if connection.recv(1 << 16) == b"":
                break
        except TimeoutError:
            assert time.monotonic() - started < 10
        except ConnectionError:
            break
    return time.monotonic() - started


def test_a_silent_connection_is_closed(address):
    with connected(address) as connection:
        assert read(connection) == b""


def test_headers_have_a_deadline(address):
    with connected(address, HEALTH[:30]) as connection:
        assert error_of(read(connection)) == (408, "the request headers did not arrive in time")


@pytest.mark.parametrize(
    ("start", "byte"),
    [
        (b"GET /", b"a"),
        (HEALTH[:-2] + b"X: ", b"a"),
        (HEALTH, b"\n"),  # between two requests
        (HEALTH + b"GET /", b"a"),
        (POST + b"Content-Length: 1000\r\n\r\n", b"a"),
        (b"GET /v1/models HTTP/1.1\r\nContent-Length: 1000\r\n" + HOST + b"\r\n", b"a"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"a"),
    ],
    ids=["line", "header", "newlines", "next request", "body", "unread body", "trailer"],
)
def test_more_bytes_do_not_extend_a_deadline(address, start, byte):
    with connected(address, start) as connection:
        assert 0.3 < drip(connection, byte) < 5


def test_a_client_that_does_not_read_is_disconnected(opened):
    long = json.dumps(LONG | {"stream": True, "n": 2, "logprobs": 20}).encode()
    limits = ServerOptions(slots=2, max_tokens=10**6, reader_timeout=0.5)
    with (
        running(opened, limits) as address,
        connected(address, receive_buffer=4096) as connection,
        httpx.Client(base_url=address, timeout=30) as client,
    ):
        connection.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(long) + long)
        while running_sequences(client) < 2:
            time.sleep(0.05)
        deadline = time.monotonic() + 20
        while running_sequences(client):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert b"data: [DONE]" not in read(connection)


def running_sequences(client):
    lines = client.get("/metrics").text.splitlines()
    return float(
        next(line.split()[1] for line in lines if line.startswith("atlas_sequences_running"))
    )


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (HEALTH[:-2] + b"X: " + b"a" * 4 * MAX_HEADER_BYTES, 431),
        (HEALTH[:-2] + b"X: a\r\n" * MAX_HEADER_BYTES, 431),
        (b"GET /" + b"a" * 4 * MAX_HEADER_BYTES, 431),
        (b"GET /" + b"a" * 90_000 + b" HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),  # TLS
        (b"GET /health HTTP/9.9\r\n\r\n", 400),
        (b"BREW /health HTTP/1.1\r\n\r\n", 400),
        (b"CONNECT example.com:80 HTTP/1.1\r\n\r\n", 400),
        (HEALTH[:-2] + b"X : a\r\n\r\n", 400),
        (HEALTH[:-2] + b"X: a\r\n b\r\n\r\n", 400),
        (POST + b"Content-Length: -5\r\n\r\n", 400),
        (POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n", 400),
        (POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    ],
)
def test_malformed_http_gets_an_error(address, data, status):
    with connected(address) as connection:
        with suppress(ConnectionError):  # refused before all was sent
            connection.sendall(data)
        assert error_of(connection.recv(1 << 16))[0] == status


def test_endless_trailers_end(patient):
    with connected(patient, POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n") as connection:
        trailers = b"a: b\r\n" * 10_000
        sent = 0
        with suppress(ConnectionError):
            while sent < 100 * len(trailers):
                connection.sendall(trailers)
                sent += len(trailers)
        assert sent < 100 * len(trailers)


def test_a_pipelined_request_ends_the_connection_after_the_first_response(address):
    with connected(address, HEALTH * 3) as connection:
        response = read(connection)
    assert response.count(b"HTTP/1.1") == 1
    assert b"connection: close" in response
    assert response.endswith(b'{"status":"ok"}')


def test_the_connection_that_waited_longest_makes_room(patient):
    with ExitStack() as stack:
        used = stack.enter_context(httpx.Client(base_url=patient))
        used.get("/health")
        silent = [stack.enter_context(connected(patient)) for _ in range(PATIENT_CONNECTIONS - 1)]
        time.sleep(1.5 * GRACE_SECONDS)
        assert httpx.get(f"{patient}/health").status_code == 200
        assert read(silent[0]) == b""
        for connection in silent[1:]:  # still open
            connection.sendall(HEALTH)
            assert b"200 OK" in connection.recv(1 << 16)
        assert used.get("/health").status_code == 200


def test_connections_that_are_being_answered_stay(opened):
    with (
        running(opened, LIMITS, max_connections_per_client=2) as address,
        httpx.Client(base_url=address, timeout=30) as client,
        client.stream("POST", "/v1/completions", json=LONG | {"stream": True}) as first,
        client.stream("POST", "/v1/completions", json=LONG | {"stream": True}) as second,
    ):
        refused = httpx.get(f"{address}/health")
        assert refused.status_code == 503
        assert refused.headers["Retry-After"] == "1"
        assert "too many connections" in refused.json()["error"]["message"]
        for stream in (first, second):
            lines = stream.iter_lines()
            assert all(next(lines).startswith("data: {") for _ in range(1))


def test_clients_are_told_apart_by_network():
    assert client_network("10.0.0.1") != client_network("10.0.0.2")
    assert client_network("2001:db8::1") == client_network("2001:db8::ffff:1")
    assert client_network("2001:db8:0:1::1") != client_network("2001:db8::1")
    assert client_network("fe80::1%eth0") == client_network("fe80::2%eth0")


def test_a_burst_of_connections_leaves_time_for_a_request(patient):
    with ExitStack() as stack:
        early = stack.enter_context(connected(patient))
        for _ in range(PATIENT_CONNECTIONS + 5):
            stack.enter_context(connected(patient))
        early.sendall(HEALTH)
        assert b"200 OK" in early.recv(1 << 16)


def test_all_clients_are_answered_beside_slow_ones(patient):
    """A small form of bench/slow_clients.py."""
    starts = [b"", HEALTH[:30], POST + b"Content-Length: 1000\r\n\r\n{", HEALTH]
    statuses = []

    def ask(stream):
        for _ in range(2):
            body = LONG | {"max_tokens": 5, "stream": stream}
            statuses.append(status_of("POST", "/v1/completions", json=body))
            statuses.append(status_of("GET", "/health"))

    def status_of(method, path, **options):
        try:
            return client.request(method, path, **options).status_code
        except httpx.RemoteProtocolError:  # on a busy machine its request came late; clients retry
            return client.request(method, path, **options).status_code

    one_request_each = httpx.Limits(max_keepalive_connections=0)
    with (
        ExitStack() as stack,
        httpx.Client(base_url=patient, limits=one_request_each, timeout=30) as client,
    ):
        for number in range(4 * PATIENT_CONNECTIONS):
            stack.enter_context(connected(patient, starts[number % len(starts)]))
        time.sleep(1.5 * GRACE_SECONDS)
        threads = [threading.Thread(target=ask, args=(n % 2 == 0,)) for n in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for number in range(PATIENT_CONNECTIONS):
            stack.enter_context(connected(patient, starts[number % len(starts)]))
        for thread in threads:
            thread.join()
    assert statuses == [200] * 4 * CLIENTS
