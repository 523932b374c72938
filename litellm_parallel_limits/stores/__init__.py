"""What every store of leases promises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from litellm_parallel_limits.limits import Answer, Lease, Limit, Scope


@dataclass(frozen=True, slots=True)
class Holding:
    """One slot in use: which lease holds it in `scope`, for which `model`, since when, at which number."""

    scope: Scope
    lease: str
    worker: str
    model: str
    started_ms: int
    capacity: int

    @classmethod
    def of(cls, lease: Lease, limit: Limit) -> Holding:
        """Return the slot of `lease` in `limit`."""
        return cls(limit.scope, lease.id, lease.worker, lease.model, lease.started_ms, limit.capacity)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Every slot in use, over all workers, at `now_ms` by the store's clock."""

    now_ms: int
    holdings: tuple[Holding, ...]


class Store(Protocol):
    """Where leases are kept: each until it is released, or until its time to live passes unrenewed.

    Every method but `release` raises StoreError where the store cannot answer in time, and may be
    cancelled at any await without a slot being lost.
    """

    name: str

    @property
    def workers(self) -> int:
        """How many workers share this store, as last known; at least 1."""
        ...

    def now_ms(self) -> int:
        """Return the store's time in milliseconds, as well as this worker knows it."""
        ...

    async def acquire(self, lease: Lease) -> Answer:
        """Take one slot in each of the lease's limits, or none where an enforced one is full."""
        ...

    def release(self, lease: Lease) -> None:
        """Free every slot of the lease. Unknown leases are ignored.

        Returns at once; takes effect before any later call of this worker, and is tried again until
        it has taken effect or the lease has lapsed.
        """
        ...

    async def renew(self, leases: Sequence[Lease]) -> None:
        """Let the leases live a full time to live from now, those that the store has lost as well.

        A lease released meanwhile stays released.
        """
        ...

    async def snapshot(self) -> Snapshot:
        """Return every slot in use."""
        ...
