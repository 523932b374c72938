"""`python -m tests.benchmarks.two_phase`: limits on several nodes, taken in two phases. A simulation.

Nothing of it is built: it shows what the design for more than one Redis would cost (`docs/performance.md`).
A request meets a limit of its tenant and one of a pool, each on its own node, which decides about its limit
alone. A phase is a call of a node, there and back. Who has one slot and is refused the other gives the one
back: until then others may be refused for want of a slot that nobody uses. Those refusals are needless.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from math import exp, log
from typing import Literal

from rich.console import Console
from rich.table import Table

Order = Literal["one call", "tenant first", "pool first", "both at a time"]
ORDERS: tuple[Order, ...] = ("one call", "tenant first", "pool first", "both at a time")

LATENCIES_MS = (0.5, 1.0, 5.0)
LOADS = (0.5, 0.9, 1.0, 1.1, 2.0)
"""Of what the pool bears: requests that come while one is held, for each of its slots."""

TENANTS, TENANT_LIMIT, POOL_LIMIT = 40, 10, 200
"""A thousandth of a fleet with 200,000 in flight, or of the one pool in it."""

MEAN_HOLD_SECONDS, HOLD_SIGMA = 5.0, 1.0
"""Of the log-normal time for which a request is at its provider."""

REQUESTS = 20_000

NODES = (1, 4, 16, 64)
CALL_US = {"one call": 88, "two phases": 83}
"""Of Redis for a call with four limits, and with two: half of a request in `tests.benchmarks.growth`."""


@dataclass(eq=False)
class Request:
    """A request of a tenant, and what became of it."""

    tenant: int
    hold: float
    slots: set[str] = field(default_factory=set)
    asked: int = 0
    refused: bool = False


@dataclass
class Outcome:
    """How many requests were refused, how many of them needlessly, and the most in flight in a scope."""

    refused: int = 0
    needless: int = 0
    peaks: Counter[str] = field(default_factory=Counter)
    left: int = 0


class Simulation:
    """Requests of one pool, in virtual time. `latency` is that of a call there and back, in seconds."""

    def __init__(self, order: Order, latency: float, load: float, requests: int, seed: int = 7) -> None:
        self._order, self._way = order, latency / 2
        self._rate = load * POOL_LIMIT / MEAN_HOLD_SECONDS
        self._random = random.Random(seed)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._ticket = count()
        self._now = 0.0
        self._holders: dict[str, set[Request]] = {}
        self._at_provider: Counter[str] = Counter()
        self._undecided: list[set[Request]] = []
        self._outcome = Outcome()
        self._left_to_come = requests

    def run(self) -> Outcome:
        """Let all requests come and go."""
        self._later(0, self._come)
        while self._events:
            self._now, _, event = heapq.heappop(self._events)
            event()
        self._outcome.needless = self._needless()
        self._outcome.left = sum(map(len, self._holders.values()))
        return self._outcome

    def _later(self, seconds: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self._now + seconds, next(self._ticket), event))

    def _come(self) -> None:
        hold = exp(self._random.gauss(log(MEAN_HOLD_SECONDS) - HOLD_SIGMA**2 / 2, HOLD_SIGMA))
        request = Request(self._random.randrange(TENANTS), hold)
        for scopes in self._first_calls(request):
            self._call(request, scopes)
        self._left_to_come -= 1
        if self._left_to_come:
            self._later(self._random.expovariate(self._rate), self._come)

    def _first_calls(self, request: Request) -> Sequence[tuple[str, ...]]:
        tenant, pool = self._scopes(request)
        calls: Mapping[Order, Sequence[tuple[str, ...]]] = {
            "one call": [(tenant, pool)],
            "tenant first": [(tenant,)],
            "pool first": [(pool,)],
            "both at a time": [(tenant,), (pool,)],
        }
        return calls[self._order]

    def _scopes(self, request: Request) -> tuple[str, str]:
        return f"tenant {request.tenant}", "pool"

    def _call(self, request: Request, scopes: tuple[str, ...]) -> None:
        request.asked += 1
        self._later(self._way, lambda: self._decide(request, scopes))

    def _decide(self, request: Request, scopes: tuple[str, ...]) -> None:
        """Take a slot in each of a node's scopes, or none; the answer is on its way."""
        full = [scope for scope in scopes if len(self._holders.get(scope, ())) >= _limit(scope)]
        for scope in full[:1]:
            self._undecided.append({one for one in self._holders[scope] if len(one.slots) < 2})
        if not full:
            for scope in scopes:
                self._holders.setdefault(scope, set()).add(request)
                request.slots.add(scope)
        self._later(self._way, lambda: self._hear(request, is_refused=bool(full)))

    def _hear(self, request: Request, *, is_refused: bool) -> None:
        request.asked -= 1
        self._outcome.refused += is_refused and not request.refused
        request.refused = request.refused or is_refused
        if request.asked:  # of two calls at the same time
            return
        missing = tuple(scope for scope in self._scopes(request) if scope not in request.slots)
        if request.refused:
            self._give_back(request)
        elif missing:
            self._call(request, missing)
        else:
            self._work(request)

    def _work(self, request: Request) -> None:
        for scope in request.slots:
            self._at_provider[scope] += 1
            self._outcome.peaks[scope] = max(self._outcome.peaks[scope], self._at_provider[scope])
        self._later(request.hold, lambda: self._end(request))

    def _end(self, request: Request) -> None:
        self._at_provider.subtract(request.slots)
        self._give_back(request)

    def _give_back(self, request: Request) -> None:
        def free() -> None:
            for scope in request.slots:
                self._holders[scope].discard(request)

        self._later(self._way, free)

    def _needless(self) -> int:
        """Return how many were refused for somebody who got nothing: each of those is to blame once."""
        blamed: set[Request] = set()
        for holders in self._undecided:
            culprit = next((one for one in holders if one.refused and one not in blamed), None)
            if culprit is not None:
                blamed.add(culprit)
        return len(blamed)


def _limit(scope: str) -> int:
    return POOL_LIMIT if scope == "pool" else TENANT_LIMIT


def busiest(nodes: int, *, pools: int = 16, tenants: int = 10_000) -> float:
    """Return the share of all calls that go to the busiest of `nodes`, of tenants and pools as Zipf has it.

    Half of the calls are about pools. Each tenant and pool has one node.
    """
    chance = random.Random(nodes)
    calls = [0.0] * nodes
    for number in (pools, tenants):
        weights = [1 / rank for rank in range(1, number + 1)]
        total = sum(weights)
        for weight in weights:
            calls[chance.randrange(nodes)] += weight / total / 2
    return max(calls)


def _refusals() -> Table:
    table = Table("a phase", "load", *ORDERS, title="needless refusals, % of all requests (all refusals)")
    for latency in LATENCIES_MS:
        for load in LOADS:
            found = [Simulation(order, latency / 1000, load, REQUESTS).run() for order in ORDERS]
            told = (f"{_percent(one.needless)} ({_percent(one.refused)})" for one in found)
            table.add_row(f"{latency} ms", f"{load}", *told)
    return table


def _percent(number: int) -> str:
    return f"{100 * number / REQUESTS:.2f}"


def _throughput() -> Table:
    table = Table("nodes", "busiest node's share of calls", "requests a second that it bears")
    alone = 1e6 / (2 * CALL_US["one call"])
    table.add_row("1, all limits in one call", "100 %", f"{alone:,.0f}")
    for nodes in NODES:
        share = busiest(nodes)
        table.add_row(f"{nodes}", f"{100 * share:.0f} %", f"{1e6 / (4 * CALL_US['two phases'] * share):,.0f}")
    return table


def _heartbeats() -> Table:
    table = Table("in flight", "slots renewed a second", "workers renewed a second", title="four limits each")
    for in_flight, workers in ((10_000, 400), (100_000, 2_000), (1_000_000, 4_000)):
        table.add_row(f"{in_flight:,}", f"{4 * in_flight / 10:,.0f}", f"{workers / 10:,.0f}")
    return table


if __name__ == "__main__":
    for table in (_refusals(), _throughput(), _heartbeats()):
        Console(width=120).print(table)
