"""Who waits, and whose turn it is, in so few words that one can see that it is right.

Nothing is kept in order here, and nothing remembered of what was freed: at every turn all that wait are
looked at anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from litellm_parallel_limits.limits import Admitted, Answer, Lease, Limit, Patience, Refused, Scope
from litellm_parallel_limits.stores.exchange import Ask, Exchange, Grant, Stands
from tests.stores.reference import Slots
from tests.stores.storages import TTL

STEP = 5_000_000
"""µs that one step of priority is worth."""

PASSES = 8
"""Turns that are missed before limits are closed to others."""

Flow = tuple[int, str]
"""Priority and name of those that take turns as one."""

Place = tuple[Scope, int]
"""A limit as those meet it that have the same number of it."""


@dataclass(eq=False)
class Waiter:
    """One who waits, who `came` at some time in µs."""

    lease: Lease
    came: int


@dataclass(eq=False)
class Lane:
    """Those that wait for the same, who stand at one of their limits."""

    limits: tuple[Limit, ...]
    flow: Flow
    home: Limit
    at: Limit
    waiters: list[Waiter] = field(default_factory=list)
    passes: int = 0

    @property
    def first(self) -> Waiter:
        """Who came first."""
        return min(self.waiters, key=lambda waiter: waiter.came)

    @property
    def place(self) -> Place:
        """Where it stands."""
        return self.at.scope, self.at.capacity

    @property
    def enforced(self) -> list[Limit]:
        """The limits that it needs slots in."""
        return [limit for limit in self.limits if not limit.observed]


class LineReference:
    """Slots, and those that wait for them in workers.

    Where the only worker is told of everything one by one it `has_calls` not, and never dies.
    """

    def __init__(self, *, has_calls: bool) -> None:
        self.slots = Slots()
        self.lanes: dict[object, Lane] = {}
        self.granted: list[tuple[str, Grant]] = []
        self._has_calls = has_calls
        self._calls: dict[str, float] = {}
        self._turns: dict[tuple[Place, Flow], int] = {}
        self._closed: dict[Scope, Lane] = {}
        self._ticks = 0

    def exchange(self, exchange: Exchange) -> list[Answer | Stands]:
        """Do what a worker asks for."""
        self._calls[exchange.worker] = self.slots.now
        for ask in exchange.releases:
            if ask.patience is not None:
                self.leave(ask.lease.id)
            self.slots.release(ask.lease)
            if not self._has_calls:
                self.serve()
        for lease in exchange.renewals:
            self.slots.renew(lease)
        self._bury()
        self.serve()
        return [self._ask(ask) for ask in exchange.asks]

    def waiting(self, scope: Scope) -> int:
        """Return how many of living workers came for a slot in `scope`."""
        came = [lane.waiters for lane in self.lanes.values() if lane.home.scope == scope]
        return sum(self.is_live(waiter) for waiters in came for waiter in waiters)

    def waiters(self) -> list[tuple[Waiter, Lane]]:
        """Return everybody who waits."""
        return [(waiter, lane) for lane in self.lanes.values() for waiter in lane.waiters]

    def is_live(self, waiter: Waiter) -> bool:
        """Whether the worker of one who waits has called within a time to live."""
        return not self._has_calls or self._calls[waiter.lease.worker] + TTL >= self.slots.now

    def lacking(self, limits: Sequence[Limit], lane: Lane | None = None) -> list[Limit]:
        """Return which of the limits have no slot for those of `lane`."""
        return [limit for limit in limits if not limit.observed and self._is_shut(limit, lane)]

    def leave(self, lease: str) -> None:
        """Let a lease wait no longer."""
        for waiter, lane in self.waiters():
            if waiter.lease.id == lease:
                self._drop(waiter, lane)

    def serve(self) -> None:
        """Give turns to all that there is room for where they stand."""
        while lanes := [lane for lane in self.lanes.values() if not self._is_shut(lane.at, lane)]:
            self._turn(min(lanes, key=self._order))

    def _is_shut(self, limit: Limit, lane: Lane | None) -> bool:
        closer = self._closed.get(limit.scope, lane)
        return self.slots.count(limit.scope) >= limit.capacity or closer is not lane

    def _order(self, lane: Lane) -> tuple[int, int, str]:
        return self._turns[lane.place, lane.flow], lane.first.came, lane.at.scope.key

    def _bury(self) -> None:
        """Keep no limits closed for the dead: where they stand there may be no room for a turn."""
        for lane in set(self._closed.values()):
            if not self.is_live(lane.first):
                self._drop(lane.first, lane)

    def _turn(self, lane: Lane) -> None:
        first, lacking = lane.first, self.lacking(lane.limits, lane)
        if not self.is_live(first):
            self._drop(first, lane)
        elif lacking:
            self._miss(lane, lacking[0])
        else:
            answer = self.slots.acquire(first.lease)
            assert isinstance(answer, Admitted)
            others = tuple(count - 1 for count in answer.in_flight)
            self.granted.append((first.lease.worker, Grant(first.lease.id, answer.lease.apart, others)))
            self._turns[lane.place, lane.flow] = self._tick() + lane.flow[0] * STEP
            self._drop(first, lane)

    def _miss(self, lane: Lane, lacking: Limit) -> None:
        lane.passes += 1
        closers = {self._closed.get(limit.scope, lane) for limit in lane.enforced}
        if lane.passes >= PASSES and closers == {lane}:
            self._closed |= {limit.scope: lane for limit in lane.enforced}
        rank = self._turns[lane.place, lane.flow]
        lane.at = lacking
        self._turns.setdefault((lane.place, lane.flow), rank)
        self._forget_flows()

    def _drop(self, waiter: Waiter, lane: Lane) -> None:
        if waiter is lane.first:
            lane.passes = 0
            self._closed = {scope: closer for scope, closer in self._closed.items() if closer is not lane}
        lane.waiters.remove(waiter)
        self.lanes = {alike: lane for alike, lane in self.lanes.items() if lane.waiters}
        self._forget_flows()

    def _forget_flows(self) -> None:
        there = {(lane.place, lane.flow) for lane in self.lanes.values()}
        self._turns = {key: rank for key, rank in self._turns.items() if key in there}

    def _ask(self, ask: Ask) -> Answer | Stands:
        lacking = self.lacking(ask.lease.limits)
        if not lacking:
            return self.slots.acquire(ask.lease)
        strict = [limit for limit in lacking if ask.patience is None or not limit.may_be_waited_for]
        limit = (strict or lacking)[0]
        count, waiting = self.slots.count(limit.scope), self.waiting(limit.scope)
        if strict or ask.patience is None or limit.wait is None:
            return Refused(limit, count, "limit", waiting)
        if waiting >= limit.wait.most:
            return Refused(limit, count, "queue_full", waiting)
        self._join(ask.lease, limit, ask.patience)
        return Stands(limit, count, waiting)

    def _join(self, lease: Lease, home: Limit, patience: Patience) -> None:
        assert home.wait is not None
        meets = [(limit.scope, limit.capacity, limit.mode, _flow(limit)) for limit in lease.limits]
        alike = (*meets, patience.priority, home.scope)
        flow = (patience.priority, home.wait.flow)
        lane = self.lanes.setdefault(alike, Lane(lease.limits, flow, home, home))
        came = self._tick() - int(patience.waited * 1e6)
        lane.waiters.append(Waiter(lease, came))
        key, rank = (lane.place, lane.flow), came + patience.priority * STEP
        self._turns[key] = min(rank, self._turns.get(key, rank))

    def _tick(self) -> int:
        self._ticks += 1
        return round(self.slots.now * 1e6) + self._ticks


def _flow(limit: Limit) -> str:
    return "" if limit.wait is None else limit.wait.flow
