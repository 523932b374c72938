"""Leases of one process."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from litellm_parallel_limits.limits import Admitted, Answer, Lease, Limit, Refused, Scope
from litellm_parallel_limits.stores import Holding, Snapshot

_Kind = Literal["held", "apart", "freed"]
_KINDS: tuple[_Kind, ...] = ("held", "apart", "freed")


@dataclass(frozen=True, slots=True)
class _Slot:
    lease: Lease
    limit: Limit
    deadline: float


class MemoryStore:
    """Keeps leases in this process, each for `ttl` seconds unless renewed.

    `clock` returns seconds that never go back. Slots that enforcement would not have given are kept
    in a place of their own beside their scope's, so that they are not compared with the limit; so are
    slots that an admin has freed.
    """

    name = "memory"
    workers = 1
    lost = False
    settled = True

    def __init__(self, *, ttl: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._ttl = ttl
        self._clock = clock
        # Within a place the slots stand in the order of their deadlines: all live equally long.
        self._places: dict[tuple[str, _Kind], dict[str, _Slot]] = {}

    def now_ms(self) -> int:
        """Return the clock's time in milliseconds."""
        return int(self._clock() * 1000)

    async def acquire(self, lease: Lease) -> Answer:
        """Take one slot in each of the lease's limits, or none where an enforced one is full."""
        counts = tuple(self._count((limit.scope.key, "held")) for limit in lease.limits)
        full = [
            (limit, count)
            for limit, count in zip(lease.limits, counts, strict=True)
            if count >= limit.capacity
        ]
        for limit, count in full:
            if not limit.observed:
                return Refused(limit, count)
        lease = replace(lease, apart=bool(full))
        self._hold(lease)
        return Admitted(lease, tuple(count + 1 for count in counts))

    def release(self, lease: Lease) -> None:
        """Free every slot of the lease."""
        for limit in lease.limits:
            for kind in _KINDS:
                self._drop((limit.scope.key, kind), lease.id)

    async def renew(self, leases: Sequence[Lease]) -> None:
        """Let the leases live a full time to live from now."""
        self._forget_lapsed()
        for lease in leases:
            self._hold(lease)

    async def snapshot(self) -> Snapshot:
        """Return every slot in use."""
        self._forget_lapsed()
        return Snapshot(self.now_ms(), tuple(Holding.of(slot.lease, slot.limit) for slot in self._used()))

    async def free(self, *, scope: Scope | None = None, lease: str | None = None) -> int:
        """Free the slots in `scope`, of `lease`, or of `lease` in `scope`, and return how many there were."""
        if scope is None and lease is None:
            return 0
        self._forget_lapsed()
        meant = [
            slot
            for slot in self._used()
            if scope in {None, slot.limit.scope} and lease in {None, slot.lease.id}
        ]
        for slot in meant:
            self._drop((slot.limit.scope.key, _kind(slot.lease, slot.limit)), slot.lease.id)
            self._put("freed", slot.lease, slot.limit)
        return len(meant)

    def _used(self) -> list[_Slot]:
        return [
            slot for (_, kind), slots in self._places.items() if kind != "freed" for slot in slots.values()
        ]

    def _drop(self, place: tuple[str, _Kind], lease: str) -> None:
        slots = self._places.get(place)
        if slots is not None:
            slots.pop(lease, None)
        if not slots:
            self._places.pop(place, None)

    def _count(self, place: tuple[str, _Kind]) -> int:
        slots = self._places.get(place)
        if slots is None:
            return 0
        now = self._clock()
        while slots and next(iter(slots.values())).deadline < now:
            del slots[next(iter(slots))]
        return len(slots)

    def _forget_lapsed(self) -> None:
        for place in [place for place in self._places if not self._count(place)]:
            del self._places[place]

    def _hold(self, lease: Lease) -> None:
        for limit in lease.limits:
            is_freed = lease.id in self._places.get((limit.scope.key, "freed"), ())
            self._put("freed" if is_freed else _kind(lease, limit), lease, limit)

    def _put(self, kind: _Kind, lease: Lease, limit: Limit) -> None:
        slots = self._places.setdefault((limit.scope.key, kind), {})
        slots.pop(lease.id, None)  # to stand last
        slots[lease.id] = _Slot(lease, limit, self._clock() + self._ttl)


def _kind(lease: Lease, limit: Limit) -> _Kind:
    return "apart" if lease.is_apart(limit) else "held"
