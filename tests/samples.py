"""Limits and leases to try things with."""

from __future__ import annotations

from itertools import count

from litellm_parallel_limits.limits import Lease, Limit, Mode, OnStoreFailure, Scope, Wait

_numbers = count(1)


def limit(
    name: str = "team",
    capacity: int = 1,
    *,
    of: str = "research",
    mode: Mode = "enforce",
    on_store_failure: OnStoreFailure = "share",
    wait: Wait | None = None,
) -> Limit:
    """Return a limit of the team `of`."""
    return Limit(Scope(name, (("team", of),)), capacity, mode, on_store_failure, wait)


def observed(name: str = "watched", capacity: int = 1) -> Limit:
    """Return a limit that only counts."""
    return limit(name, capacity, mode="observe")


def lease(*limits: Limit, worker: str = "w1", model: str = "gpt-4", started_ms: int = 0) -> Lease:
    """Return a lease that no store has seen yet."""
    return Lease(f"lease-{next(_numbers)}", limits, worker, model, started_ms)
