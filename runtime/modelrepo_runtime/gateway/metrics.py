"""What a gateway counts, for Prometheus. The names are documented in docs/api.md; a test holds the two together."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """The counters of one gateway, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "modelrepo_gateway_requests_total",
            "Requests answered.",
            ("method", "route", "status"),
            registry=registry,
        )
        self.request_seconds = Histogram(
            "modelrepo_gateway_request_seconds",
            "From a request's headers to the end of its answer; long waits count whole.",
            ("route",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.requests_under_way = Gauge(
            "modelrepo_gateway_requests_under_way", "Requests being answered, long waits among them.", registry=registry
        )
        self.waits = Gauge(
            "modelrepo_gateway_waits",
            "Long waits: wait (Prefer), events, claim.",
            ("kind",),
            registry=registry,
        )
        self.calls_under_way = Gauge(
            "modelrepo_gateway_calls_under_way",
            "Calls of the queue or of stores that run or wait for a thread.",
            ("to",),
            registry=registry,
        )
        self.call_seconds = Histogram(
            "modelrepo_gateway_call_seconds",
            "From the wish for a call to its end, the wait for a thread included.",
            ("to",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.submissions = Counter(
            "modelrepo_gateway_submissions_total", "Jobs taken in.", ("model", "tier"), registry=registry
        )
        self.refusals = Counter(
            "modelrepo_gateway_refusals_total",
            "Requests answered with errors.",
            ("code",),
            registry=registry,
        )
        self.webhook_tries = Counter(
            "modelrepo_gateway_webhook_tries_total",
            "Events posted to webhooks: delivered, refused, unanswered.",
            ("outcome",),
            registry=registry,
        )
        self.file_bytes = Counter(
            "modelrepo_gateway_file_bytes_total", "Bytes of files passed on: in, out.", ("way",), registry=registry
        )
        self._answered: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request; its counters are looked up once."""
        found = self._answered.get((method, route, status))
        if found is None:
            found = self.requests.labels(method, route, status), self.request_seconds.labels(route)
            self._answered[method, route, status] = found
        found[0].inc()
        found[1].observe(seconds)
