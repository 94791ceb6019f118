"""Prometheus metrics of the API. Labels come from closed sets; no user string becomes one."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from jobs.states import STATUSES
from jobs.store import Store

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class RequestMetrics:
    """Counts requests and shows how the queue stands."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "mige_http_requests",
            "Requests by method, route and status.",
            ["method", "route", "status"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "mige_http_request_seconds",
            "Time from the request to the end of the answer.",
            ["route"],
            registry=self._registry,
        )
        self._jobs = Gauge("mige_jobs", "Jobs by status.", ["status"], registry=self._registry)
        self._oldest = Gauge(
            "mige_queue_oldest_seconds", "Age of the oldest queued job.", registry=self._registry
        )

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request."""
        known = method if method in _METHODS else "other"
        self._requests.labels(known, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def render(self, store: Store) -> bytes:
        """The exposition text, with the queue as it stands now."""
        counts = store.counts()
        for status in STATUSES:
            self._jobs.labels(status).set(counts[status])
        self._oldest.set(store.oldest_queued_age_s() or 0.0)
        return generate_latest(self._registry)
