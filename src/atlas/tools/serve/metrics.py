"""Server metrics for Prometheus, an optional extra: ``pip install 'atlas[metrics]'``."""

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120)


class Metrics:
    """Metrics of one server, in a registry of their own."""

    def __init__(self) -> None:
        import prometheus_client as prometheus

        self._render = prometheus.generate_latest
        self._registry = registry = prometheus.CollectorRegistry()
        prometheus.ProcessCollector(registry=registry)
        self._requests = prometheus.Counter(
            "atlas_requests", "Responses by path and status.", ("path", "status"), registry=registry
        )
        self._tokens = prometheus.Counter(
            "atlas_tokens", "Prompt and completion tokens.", ("kind",), registry=registry
        )
        self._running = prometheus.Gauge(
            "atlas_sequences_running", "Sequences being generated.", registry=registry
        )
        self._waiting = prometheus.Gauge(
            "atlas_sequences_waiting", "Sequences waiting for a slot.", registry=registry
        )
        self._first_token = prometheus.Histogram(
            "atlas_time_to_first_token_seconds", "From a streamed request to its first token.",
            registry=registry, buckets=SECONDS,
        )  # fmt: skip
        self._duration = prometheus.Histogram(
            "atlas_request_seconds", "From a request to the end of its response.", ("path",),
            registry=registry, buckets=SECONDS,
        )  # fmt: skip

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return self._render(self._registry)

    def record_response(self, path: str, status: int, seconds: float) -> None:
        """Count a response and its duration."""
        self._requests.labels(path, str(status)).inc()
        self._duration.labels(path).observe(seconds)

    def record_first_token(self, seconds: float) -> None:
        """Record the time from a streamed request to its first token."""
        self._first_token.observe(seconds)

    def record_step(self, *, prompt: int, completion: int, running: int, waiting: int) -> None:
        """Add the tokens of one engine step, and set the current number of sequences."""
        self._tokens.labels("prompt").inc(prompt)
        self._tokens.labels("completion").inc(completion)
        self._running.set(running)
        self._waiting.set(waiting)


def create_metrics() -> Metrics | None:
    """Return new metrics, or None where ``prometheus-client`` is not installed."""
    try:
        return Metrics()
    except ImportError:
        return None
