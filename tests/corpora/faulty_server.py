"""A local HTTP server that simulates the faults of real ones."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CONTENT = bytes(range(256)) * 4000


@dataclass(frozen=True)
class Answer:
    """The response to one request: a status, or the content with a fault."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    content: bytes | None = None  # instead of the file's
    break_after: int | None = None  # bytes sent before the connection breaks
    pace: float = 0.0  # seconds after each byte
    silence: float = 0.0  # seconds before the body
    announced: bool = True  # with a Content-Length


@dataclass(frozen=True)
class Request:
    path: str
    range: str | None
    if_range: str | None


class Server(ThreadingHTTPServer):
    """Serve files by path, or CONTENT at any path."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] | None = None
        self.script: list[Answer] = []  # one per request, then no more faults
        self.requests: list[Request] = []
        self.ranges = True
        self.etag: str | None = '"1"'
        self.sends_content_range = True  # Content-Range: required by HTTP, but some servers omit it
        self.range_offset = 0  # bytes between the requested range and the one sent
        self.concurrent = 0
        self.max_concurrent = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def ranges_asked(self) -> list[str | None]:
        return [request.range for request in self.requests]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        server = self.server
        with server.lock:
            server.concurrent += 1
            server.max_concurrent = max(server.max_concurrent, server.concurrent)
            server.requests.append(
                Request(self.path, self.headers.get("Range"), self.headers.get("If-Range"))
            )
            answer = server.script.pop(0) if server.script else Answer()
        try:
            self._answer(answer)
        except (BrokenPipeError, ConnectionResetError):
            pass
        finally:
            with server.lock:
                server.concurrent -= 1

    def _answer(self, answer: Answer) -> None:
        files = self.server.files
        content = CONTENT if files is None else files.get(self.path)
        content = content if answer.content is None else answer.content
        status = 404 if content is None and answer.status == 200 else answer.status
        if content is None or status != 200:
            return self._head(status, answer, 0, {})
        start = self._start(len(content))
        if start is None:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        body = content[start:]
        begin = start + self.server.range_offset
        span = {"Content-Range": f"bytes {begin}-{len(content) - 1}/{len(content)}"}
        said = span if start and self.server.sends_content_range else {}
        self._head(206 if start else 200, answer, len(body), said)
        time.sleep(answer.silence)
        if answer.pace:
            for index in range(len(body)):
                self.wfile.write(body[index : index + 1])
                time.sleep(answer.pace)
        self.wfile.write(body[: answer.break_after])
        return None

    def _head(self, status: int, answer: Answer, length: int, more: dict[str, str]) -> None:
        self.send_response(status)
        if answer.announced:
            self.send_header("Content-Length", str(length))
        if self.server.etag:
            self.send_header("ETag", self.server.etag)
        for key, value in (answer.headers | more).items():
            self.send_header(key, value)
        self.end_headers()

    def _start(self, length: int) -> int | None:
        """Return the first requested byte, None beyond the end."""
        wanted = self.headers.get("Range")
        unchanged = self.headers.get("If-Range") in (None, self.server.etag)
        if not wanted or not self.server.ranges or not unchanged:
            return 0
        start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        return start if start < length else None

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def running() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
