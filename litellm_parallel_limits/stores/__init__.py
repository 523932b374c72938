"""What every store of leases promises."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from litellm_parallel_limits.limits import Answer, Lease, Limit, Patience, Scope, Waiting


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
    """Every slot in use, at `now_ms` by the store's clock; of one worker only where it `is_whole` not.

    `waiting` is how many wait that came for a scope, of those in use, if any do.
    """

    now_ms: int
    holdings: tuple[Holding, ...]
    is_whole: bool = True
    waiting: Mapping[Scope, int] = field(default_factory=dict[Scope, int])


class Store(Protocol):
    """Where leases are kept: each until it is released, or until its time to live passes unrenewed.

    Every method but `release` raises StoreError where the store cannot answer in time, and may be
    cancelled at any await without a slot being lost.
    """

    @property
    def name(self) -> str:
        """What kind of store it is, as the settings call it."""
        ...

    @property
    def workers(self) -> int:
        """How many workers share this store, as last known; at least 1."""
        ...

    @property
    def lost(self) -> bool:
        """Whether the store may have lost leases since this worker last renewed what it holds.

        Also where it was never asked anything: nobody knows its time yet either.
        """
        ...

    @property
    def settled(self) -> bool:
        """Whether every worker has had the time to renew what it holds since the store last lost leases."""
        ...

    def now_ms(self) -> int:
        """Return the store's time in milliseconds, as well as this worker knows it."""
        ...

    async def acquire(self, lease: Lease) -> Answer:
        """Take one slot in each of the lease's limits, or none where an enforced one is full.

        Raises LeasesLostError until everything that this worker holds has been renewed, where the
        store has lost leases.
        """
        ...

    async def wait(self, lease: Lease, patience: Patience) -> Answer | Waiting:
        """Take the lease's slots as `acquire` does, or let it wait for them if all that are full allow it.

        It waits, with nothing held, until it is released or its turn has come. It is refused also where the
        store can let nobody wait just now.
        """
        ...

    def release(self, lease: Lease) -> None:
        """Free every slot of the lease, or let it wait no longer. Unknown leases are ignored.

        Returns at once; takes effect before any later call of this worker, and is tried again until
        it has taken effect or the lease has lapsed.
        """
        ...

    def told(self) -> Awaitable[None]:
        """Return what is done once everything that was released before this call is free for all."""
        ...

    async def renew(self, leases: Sequence[Lease]) -> None:
        """Let the leases live a full time to live from now, those that the store has lost as well.

        A lease released meanwhile stays released, a slot that was freed stays free. Raises
        LeasesLostError where the store lost leases meanwhile: these may be among them.
        """
        ...

    async def snapshot(self) -> Snapshot:
        """Return every slot in use."""
        ...

    async def free(self, *, scope: Scope | None = None, lease: str | None = None) -> int:
        """Free the slots in `scope`, of `lease`, or of `lease` in `scope`, and return how many there were.

        For an admin: who holds such a slot goes on, and is no longer counted there, however often it
        renews its lease. With neither named nothing is freed.
        """
        ...

    async def note(self, place: str, amounts: Mapping[str, int], *, seconds: int, most: int) -> None:
        """Add `amounts`, by name, to what all workers have noted at a `place`.

        It is kept for so many `seconds` from now. Of more than `most` names the last ones are left out.
        """
        ...

    async def noted(self, places: Sequence[str]) -> Sequence[Mapping[str, int]]:
        """Return the sums of what was noted at each of `places`."""
        ...
