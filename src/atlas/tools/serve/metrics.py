"""Server metrics for Prometheus, an optional extra: ``pip install 'atlas[metrics]'``."""

from functools import partial

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120)


class Metrics:
    """Metrics of one server, in its own Prometheus registry."""

    def __init__(self) -> None:
        import prometheus_client as prometheus

        registry = prometheus.CollectorRegistry()
        prometheus.ProcessCollector(registry=registry)
        counter = partial(prometheus.Counter, registry=registry)
        gauge = partial(prometheus.Gauge, registry=registry)
        histogram = partial(prometheus.Histogram, registry=registry, buckets=SECONDS)
        self.responses = counter(
            "atlas_requests", "Responses by path and status.", ("path", "status")
        )
        self.tokens = counter("atlas_tokens", "Prompt and completion tokens.", ("kind",))
        self.running = gauge("atlas_sequences_running", "Sequences being generated.")
        self.waiting = gauge("atlas_sequences_waiting", "Sequences waiting for a slot.")
        self.first_token = histogram(
            "atlas_time_to_first_token_seconds", "From a streamed request to its first token."
        )
        self.duration = histogram(
            "atlas_request_seconds", "From a request to the end of its response.", ("path",)
        )
        self.render = partial(prometheus.generate_latest, registry)  # in Prometheus' text format


def create_metrics() -> Metrics | None:
    """Return new metrics, or None where ``prometheus-client`` is not installed."""
    try:
        return Metrics()
    except ImportError:
        return None
