"""What a worker may admit by itself, of limits that it shares with others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from litellm_parallel_limits.errors import StoreUnavailableError
from litellm_parallel_limits.limits import (
    MOST_PARALLEL_REQUESTS,
    Admitted,
    Answer,
    Lease,
    Limit,
    Refused,
)

Share = Callable[[Limit, int], int]


def share_alone(limit: Limit, workers: int) -> int:
    """Return how many of `limit` one of `workers` may hold that cannot ask their store."""
    if limit.on_store_failure == "deny":
        return 0
    return share_beside(limit, workers)


def share_beside(limit: Limit, workers: int) -> int:
    """Return how many of `limit` one of `workers` may hold while their store may know too little.

    The shares of all workers are no more than the limit, but where the limit is less than one for each:
    then it is one, unless the limit says deny.
    """
    share = limit.capacity // workers
    if limit.on_store_failure == "deny":
        return share
    if limit.on_store_failure == "allow" and limit.capacity:
        return MOST_PARALLEL_REQUESTS
    return min(limit.capacity, max(1, share))


class Shares:
    """Counts what this worker holds in each scope, and compares it with the worker's share."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def add(self, lease: Lease) -> None:
        """Count a lease."""
        for scope in _counted(lease):
            self._counts[scope] = self._counts.get(scope, 0) + 1

    def remove(self, lease: Lease) -> None:
        """Count a lease no longer."""
        for scope in _counted(lease):
            left = self._counts.pop(scope) - 1
            if left:
                self._counts[scope] = left

    @contextmanager
    def counting(self, lease: Lease) -> Iterator[None]:
        """Count a lease in the block: who is asked for at the same time finds it there."""
        self.add(lease)
        try:
            yield
        finally:
            self.remove(lease)

    def decide(self, lease: Lease, share: Share, workers: int) -> Answer:
        """Admit or refuse by what this worker holds.

        Raises StoreUnavailableError where a limit that says deny has no room.
        """
        counts = tuple(self._counts.get(limit.scope.key, 0) for limit in lease.limits)
        full = [
            (limit, count, most)
            for limit, count in zip(lease.limits, counts, strict=True)
            if count >= (most := share(limit, workers))
        ]
        for limit, count, most in full:
            if limit.observed:
                continue
            if limit.on_store_failure == "deny":
                raise StoreUnavailableError(limit.scope.limit)
            return Refused(replace(limit, capacity=most), count, "store_unavailable")
        return Admitted(replace(lease, apart=bool(full)), tuple(count + 1 for count in counts))


def _counted(lease: Lease) -> list[str]:
    """Return the keys of the scopes in which the lease is compared with the limit."""
    return [limit.scope.key for limit in lease.limits if not (lease.apart and limit.observed)]
