"""Leases of one process."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from litellm_parallel_limits.limits import Admitted, Answer, Lease, Limit, Patience, Scope, Waiting
from litellm_parallel_limits.stores import Holding, Snapshot
from litellm_parallel_limits.stores.admit import admit, is_apart
from litellm_parallel_limits.stores.exchange import Ask, Stands
from litellm_parallel_limits.stores.line import Line, Ticks, create

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
        self._waiting: dict[str, asyncio.Future[Admitted]] = {}
        self._notes: dict[str, tuple[float, Counter[str]]] = {}
        self._ticks = Ticks(clock)
        self._waiters: sqlite3.Connection | None = None

    def now_ms(self) -> int:
        """Return the clock's time in milliseconds."""
        return int(self._clock() * 1000)

    async def acquire(self, lease: Lease) -> Answer:
        """Take one slot in each of the lease's limits, or none where an enforced one is full."""
        answer = self._admit(Ask(lease), self._line(()) if self._waiting else None)
        assert not isinstance(answer, Stands)  # noqa: S101 (nobody waits without patience)
        return answer

    async def wait(self, lease: Lease, patience: Patience) -> Answer | Waiting:
        """Take the lease's slots, or let it wait for them if all that are full allow it."""
        answer = self._admit(Ask(lease), None) if not self._waiting else None
        if isinstance(answer, Admitted):  # nobody waits, and nor does it
            return answer
        answer = self._admit(Ask(lease, patience), self._line(()))
        if not isinstance(answer, Stands):
            return answer
        turn: asyncio.Future[Admitted] = asyncio.get_running_loop().create_future()
        self._waiting[lease.id] = turn
        return Waiting(lease, answer.limit, answer.in_flight, answer.waiting, turn)

    def release(self, lease: Lease) -> None:
        """Free every slot of the lease, or let it wait no longer."""
        for limit in lease.limits:
            for kind in _KINDS:
                if (place := (limit.scope.key, kind)) in self._places:
                    self._drop(place, lease.id)
        if self._waiting:
            opened = self._line(()).leave(lease.id) if self._waiting.pop(lease.id, None) else ()
            self._line([limit.scope for limit in (*lease.limits, *opened)])

    async def told(self) -> None:
        """Do nothing: what is released is free."""

    async def renew(self, leases: Sequence[Lease]) -> None:
        """Let the leases live a full time to live from now."""
        self._forget_lapsed()
        for lease in leases:
            self._hold(lease)
        if self._waiting:
            self._line(())

    async def snapshot(self) -> Snapshot:
        """Return every slot in use."""
        self._forget_lapsed()
        held = tuple(Holding.of(slot.lease, slot.limit) for slot in self._used())
        if not self._waiting:
            return Snapshot(self.now_ms(), held)
        line = self._line(())
        return Snapshot(self.now_ms(), held, waiting={slot.scope: line.waiting(slot.scope) for slot in held})

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
            self._put("freed", _Slot(slot.lease, slot.limit, self._clock() + self._ttl))
        if self._waiting:
            self._line([slot.limit.scope for slot in meant])
        return len(meant)

    async def note(self, place: str, amounts: Mapping[str, int], *, seconds: int, most: int) -> None:
        """Add `amounts` to what was noted at a `place`."""
        now = self._clock()
        self._notes = {known: note for known, note in self._notes.items() if note[0] > now}
        _, sums = self._notes.get(place, (now, Counter()))
        for name, amount in amounts.items():
            if name in sums or len(sums) < most:
                sums[name] += amount
        self._notes[place] = (now + seconds, sums)

    async def noted(self, places: Sequence[str]) -> Sequence[Mapping[str, int]]:
        """Return the sums of what was noted at each of `places`."""
        return [self._notes[place][1] if place in self._notes else {} for place in places]

    def count(self, scope: Scope) -> int:
        """Return how many leases are compared with a limit of `scope`."""
        return self._count((scope.key, "held"))

    def grant(self, lease: Lease) -> None:
        """Give the lease its slots, and tell who waits."""
        counts = [self.count(limit.scope) for limit in lease.limits]
        lease = replace(lease, apart=is_apart(zip(lease.limits, counts, strict=True)))
        self._hold(lease)
        turn = self._waiting.pop(lease.id)
        if not turn.done():  # else it is about to leave
            turn.set_result(Admitted(lease, tuple(count + 1 for count in counts)))

    def lapses_at(self, scope: Scope) -> int:
        """Return when the next lease in `scope` lapses; a time to live from now if there is none."""
        self.count(scope)
        slots = self._places.get((scope.key, "held"))
        deadline = next(iter(slots.values())).deadline if slots else self._clock() + self._ttl
        return int(deadline * 1000)

    def is_live(self, worker: str) -> bool:  # noqa: ARG002 (who asks)
        """Return that this process lives."""
        return True

    def _admit(self, ask: Ask, line: Line | None) -> Answer | Stands:
        answer = admit(ask, self, line)
        if isinstance(answer, Admitted):
            self._hold(answer.lease)
        return answer

    def _line(self, freed: Sequence[Scope]) -> Line:
        """Return those that wait, after a turn for whoever can use what was freed or has lapsed."""
        if self._waiters is None:
            self._waiters = sqlite3.connect(":memory:", isolation_level=None)
            create(self._waiters.cursor())
        line = Line(self._waiters.cursor(), self, now=self.now_ms(), tick=self._ticks)
        line.serve(freed)
        while 0 < line.alarm() < self.now_ms():  # more than are given at a time
            line = Line(self._waiters.cursor(), self, now=self.now_ms(), tick=self._ticks)
            line.serve()
        return line

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
        deadline = self._clock() + self._ttl
        for limit in lease.limits:
            is_freed = lease.id in self._places.get((limit.scope.key, "freed"), ())
            self._put("freed" if is_freed else _kind(lease, limit), _Slot(lease, limit, deadline))

    def _put(self, kind: _Kind, slot: _Slot) -> None:
        place, lease = (slot.limit.scope.key, kind), slot.lease.id
        if place in self._places:
            self._places[place].pop(lease, None)  # to stand last
            self._places[place][lease] = slot
        else:
            self._places[place] = {lease: slot}


def _kind(lease: Lease, limit: Limit) -> _Kind:
    return "apart" if lease.apart and limit.observed else "held"
