"""What the server counts, for Prometheus."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120)


class Metrics:
    """Counters of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "atlas_requests", "Answers by path and status.", ("path", "status"),
            registry=self.registry,
        )  # fmt: skip
        self._tokens = Counter(
            "atlas_tokens", "Tokens read and written.", ("kind",), registry=self.registry
        )
        self._growing = Gauge(
            "atlas_texts_growing", "Texts that are being written.", registry=self.registry
        )
        self._waiting = Gauge(
            "atlas_texts_waiting", "Texts that wait for a slot.", registry=self.registry
        )
        self._first_token = Histogram(
            "atlas_first_token_seconds", "From a streamed request to its first token.",
            registry=self.registry, buckets=SECONDS,
        )  # fmt: skip
        self._answer = Histogram(
            "atlas_answer_seconds", "From a request to the end of its answer.", ("path",),
            registry=self.registry, buckets=SECONDS,
        )  # fmt: skip

    def page(self) -> bytes:
        """All of them in Prometheus' text format."""
        return generate_latest(self.registry)

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Counts an answer to a path of the API."""
        self._requests.labels(path, str(status)).inc()
        self._answer.labels(path).observe(seconds)

    def first_token(self, seconds: float) -> None:
        """Counts how long a request waited for its first token."""
        self._first_token.observe(seconds)

    def prompt_tokens(self, count: int) -> None:
        """Counts tokens that were read."""
        self._tokens.labels("prompt").inc(count)

    def written_tokens(self, count: int) -> None:
        """Counts tokens that were written."""
        self._tokens.labels("written").inc(count)

    def busy(self, growing: int, waiting: int) -> None:
        """Sets how many texts there are."""
        self._growing.set(growing)
        self._waiting.set(waiting)
