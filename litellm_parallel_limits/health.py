"""How one worker's limiter is."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from litellm_parallel_limits.limiter import Limiter


def _version() -> str:
    try:
        return version("litellm-parallel-limits")
    except PackageNotFoundError:  # a folder on PYTHONPATH
        return "unknown"


VERSION = _version()


@dataclass(frozen=True, slots=True)
class Health:
    """How the limiter of the worker is that answers; it asks its store for that.

    `store_ms` is how long the store took, null while it is out; `degraded_seconds` for how long it has been
    out; `last_heartbeat_seconds` how long ago the worker renewed what it holds, null where it holds nothing.
    `workers` is how many share the store.
    """

    status: Literal["healthy", "degraded"]
    store: str
    store_ms: float | None
    worker: str
    workers: int
    in_flight: int
    waiting: int
    last_heartbeat_seconds: float | None
    degraded_seconds: float | None
    version: str


async def health(limiter: Limiter) -> Health:
    """Return how the `limiter` is, after a call to its store."""
    state = await limiter.state()
    return Health(
        status="healthy" if state.degraded_seconds is None else "degraded",
        store=limiter.store.name,
        store_ms=None if state.store_seconds is None else round(state.store_seconds * 1000, 2),
        worker=limiter.worker,
        workers=limiter.store.workers,
        in_flight=state.in_flight,
        waiting=state.waiting,
        last_heartbeat_seconds=_rounded(state.heartbeat_seconds),
        degraded_seconds=_rounded(state.degraded_seconds),
        version=VERSION,
    )


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
