"""What Prometheus is told, where LiteLLM serves its metrics."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.multiprocess import mark_process_dead

from litellm_parallel_limits.events import (
    Denied,
    Event,
    InvalidLimit,
    LookUpFailed,
    Released,
    StoreAnswered,
    StoreFailed,
    StoreRecovered,
    WaitBegan,
    WaitEnded,
)
from litellm_parallel_limits.limits import Admitted, Limit, Refused

PREFIX = "litellm_parallel_limits_"

MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"
"""The variable of prometheus_client that names the folder where several workers count."""

ADMITTED, WOULD_REFUSE, REFUSED = "admitted", "would_refuse", "refused"
STORE_UNAVAILABLE = "store_unavailable"
"""Outcomes, beside the reasons of other refusals."""

HELD_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1800)
"""From an embedding to an agent's longest stream: LiteLLM times out after 600 s, or after what it is told."""

WAIT_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
"""From a slot that comes free at once to a line that one leaves for lunch."""

STORE_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)
"""From Redis beside the proxy to `store_timeout_ms`, a quarter of a second if nothing else is said."""

UTILIZATION = (0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1)
"""Shares of a limit; 1 is full."""


class _OfLimit:
    """The series of one limit, found once: each look costs more than the counting."""

    def __init__(self, metrics: Metrics, limit: str) -> None:
        self._metrics = metrics
        self._limit = limit
        self._outcomes: dict[str, Counter] = {}
        self.in_flight = metrics.in_flight.labels(limit)
        self.utilization = metrics.utilization.labels(limit)
        self.held = metrics.held.labels(limit)
        self.waiting = metrics.waiting.labels(limit)

    def count(self, outcome: str) -> None:
        """Count an admission, or what it was instead."""
        if outcome not in self._outcomes:
            self._outcomes[outcome] = self._metrics.admissions.labels(self._limit, outcome)
        self._outcomes[outcome].inc()


class Metrics:
    """Counts what happens in a worker, by the limits' names, whoever the requests are of.

    Gauges are summed up over the workers of a proxy where LiteLLM gathers those.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        def gauge(name: str, told: str, labels: Sequence[str] = (), *, of_all: Any = "livesum") -> Gauge:
            return Gauge(PREFIX + name, told, labels, registry=registry, multiprocess_mode=of_all)

        def counter(name: str, told: str, labels: Sequence[str] = ()) -> Counter:
            return Counter(PREFIX + name, told, labels, registry=registry)

        def histogram(name: str, told: str, labels: Sequence[str], buckets: Sequence[float]) -> Histogram:
            return Histogram(PREFIX + name, told, labels, registry=registry, buckets=buckets)

        self.in_flight = gauge("in_flight", "Slots held by requests in flight", ["limit"])
        self.waiting = gauge("waiting", "Requests that wait for a slot", ["limit"])
        self.degraded = gauge("degraded", "1 while the store is out", of_all="livemax")
        self.admissions = counter("admissions", "Requests that met the limit", ["limit", "outcome"])
        self.utilization = histogram(
            "limit_utilization", "Share of the limit in use as a request met it", ["limit"], UTILIZATION
        )
        self.held = histogram("held_seconds", "How long a slot was held", ["limit"], HELD_SECONDS)
        self.waited = histogram(
            "wait_seconds", "How long a request waited", ["limit", "outcome"], WAIT_SECONDS
        )
        self.store = histogram("store_seconds", "How long the store took", ["operation"], STORE_SECONDS)
        self.failures = counter("store_failures", "Calls that the store did not answer", ["operation"])
        self.invalid = counter("invalid_limits", "Values in records that are no number", ["source"])
        self.unread = counter("look_up_failures", "Records of LiteLLM's that could not be read")
        self._limits: dict[str, _OfLimit] = {}

    def __call__(self, event: Event) -> None:
        """Take note of what happened."""
        match event:
            case Admitted():
                self._admitted(event)
            case Refused(limit, in_flight, reason) if not limit.scope.is_tried:
                self._of(limit).count(REFUSED if reason == "limit" else reason)
                if reason != STORE_UNAVAILABLE:
                    self._of(limit).utilization.observe(_share(limit, in_flight))
            case Denied(limit):
                self._of(limit).count(STORE_UNAVAILABLE)
            case Released(lease, seconds):
                for limit in lease.limits:
                    self._of(limit).in_flight.dec()
                    if not limit.scope.is_tried:
                        self._of(limit).held.observe(seconds)
            case WaitBegan(limit) if not limit.scope.is_tried:
                self._of(limit).waiting.inc()
            case WaitEnded(limit, seconds, outcome) if not limit.scope.is_tried:
                self._of(limit).waiting.dec()
                self.waited.labels(limit.scope.limit, outcome).observe(seconds)
            case _:
                self._trouble(event)

    def _admitted(self, admitted: Admitted) -> None:
        overrun = {limit.scope.limit for limit, _ in admitted.overrun}
        for limit, count in admitted.counts():
            series = self._of(limit)
            series.in_flight.inc()
            if not limit.scope.is_tried:
                series.count(WOULD_REFUSE if limit.scope.limit in overrun else ADMITTED)
                series.utilization.observe(_share(limit, count))

    def _trouble(self, event: Event) -> None:
        match event:
            case StoreAnswered(operation, seconds):
                self.store.labels(operation).observe(seconds)
            case StoreFailed(operation):
                self.failures.labels(operation).inc()
                self.degraded.set(1)
            case StoreRecovered():
                self.degraded.set(0)
            case InvalidLimit(source):
                self.invalid.labels(source).inc()
            case LookUpFailed():
                self.unread.inc()
            case _:
                pass

    def _of(self, limit: Limit) -> _OfLimit:
        name = limit.scope.limit
        if name not in self._limits:
            self._limits[name] = _OfLimit(self, name)
        return self._limits[name]


@cache
def metrics() -> Metrics:
    """Return the metrics of this process: a registry takes each name once."""
    if folder := os.environ.get(MULTIPROCESS):
        forget_the_dead(Path(folder))
    return Metrics()


def forget_the_dead(folder: Path) -> None:
    """Remove the gauges of processes that have ended: nobody else does, and they would count for ever.

    They are in files that are named after the process. A worker that was killed is followed by a new one,
    which does this when it starts.
    """
    for path in folder.glob("gauge_live*_*.db"):
        process = path.stem.rpartition("_")[2]
        if process.isdecimal() and not _is_alive(int(process)):
            with suppress(OSError):  # another worker that starts has just done it
                mark_process_dead(int(process), str(folder))  # type: ignore[no-untyped-call]


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _share(limit: Limit, count: int) -> float:
    return count / limit.capacity if limit.capacity else 1.0
