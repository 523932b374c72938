"""`python -m tests.benchmarks.growth`: how the time that Redis takes for a request grows, and its memory.

Redis itself measures: its slow log tells how long each call kept it busy. A request is two calls, one that
takes its slots and one that gives them back, with nobody else at work, so that requests share nothing.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

from redis.asyncio import Redis
from rich.console import Console
from rich.table import Table

from litellm_parallel_limits.limits import Lease, Limit, Patience, Scope, Wait
from litellm_parallel_limits.stores.exchange import Ask, Exchange, Reply
from litellm_parallel_limits.stores.redis import ROOT, RedisBackend
from litellm_parallel_limits.stores.shared import MOST_SLOTS
from tests.benchmarks.figures import spread
from tests.rig.process import HOST
from tests.rig.redis_server import RedisServer

TTL = 30.0
REQUESTS = 200
PLENTY = 10_000_000
NAMES = tuple(f"limit{number:02}" for number in range(16))
"""Of limits."""


@dataclass(frozen=True)
class Times:
    """Microseconds for which Redis was busy with a request, in the median, and with a call at most."""

    request: float
    call: float


AT_A_TIME = 50_000
"""Filled in: longer scripts are given up."""

FILL = "local root, now = ARGV[1], tonumber(ARGV[2]) for number = ARGV[3], ARGV[4] do"
LIVES, LAPSED = "now + 3600000", "now - 1000"
IN_FLIGHT = (
    "redis.call('ZADD', root .. ':lease:limit00;user=ann', {}, number .. ':other:1795000000000:100:gpt-4o')"
)
IN_SCOPE = (
    "redis.call('ZADD', root .. ':lease:limit00;user=user' .. number, now + 3600000,"
    " number .. ':other:1795000000000:100:gpt-4o')"
    " redis.call('ZADD', root .. ':scopes', now + 3600000, 'limit00;user=user' .. number)"
)
WORKER = "redis.call('ZADD', root .. ':workers', now + 3600000, 'worker' .. number)"


class Bench:
    """A worker that calls a Redis which is filled beforehand."""

    def __init__(self, port: int) -> None:
        self.client: Any = Redis(host=HOST, port=port)
        self._backend = RedisBackend(self.client, ttl=TTL)
        self._epoch = 0
        self._numbers, self._leases = count(1), count()

    async def exchange(self, **what: Any) -> Reply:
        """Make a call."""
        number = next(self._numbers)
        call = Exchange("bench", number, number - 1, lately=True, epoch=self._epoch, **what)
        reply = await self._backend.exchange(call)
        self._epoch = reply.epoch
        return reply

    def lease(self, *limits: Limit) -> Lease:
        """Return another lease."""
        return Lease(f"{next(self._leases):016x}", limits, "bench", "gpt-4o", int(time.time() * 1000))

    async def requests(self, *limits: Limit, number: int = REQUESTS) -> Times:
        """Make some requests, one after the other."""
        await self.exchange()
        async with _Measuring(self.client) as busy:
            for _ in range(number):
                lease = self.lease(*limits)
                await self.exchange(asks=[Ask(lease)])
                await self.exchange(releases=[Ask(lease)])
        pairs = [take + give for take, give in zip(busy[::2], busy[1::2], strict=True)]
        return Times(median(pairs), max(busy))

    async def fill(self, script: str, number: int) -> float:
        """Run a script so often within Redis; return the bytes that each time took of its memory."""
        before = await self.client.info("memory")
        for start in range(0, number, AT_A_TIME):
            told = (ROOT, int(time.time() * 1000), start + 1, min(start + AT_A_TIME, number))
            await self.client.eval(f"{FILL} {script} end", 0, *told)
        after = await self.client.info("memory")
        return float(after["used_memory"] - before["used_memory"]) / number


class _Measuring:
    """The microseconds for which Redis was busy with each of our calls in this context, when it is left."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._busy: list[int] = []

    async def __aenter__(self) -> list[int]:
        await self._client.config_set("slowlog-max-len", 100_000)
        await self._client.config_set("slowlog-log-slower-than", 0)
        await self._client.slowlog_reset()
        return self._busy

    async def __aexit__(self, *_: object) -> None:
        told = await self._client.slowlog_get(100_000)
        await self._client.config_set("slowlog-log-slower-than", -1)
        calls = [one for one in reversed(told) if one["command"].upper().startswith(b"EVAL")]
        self._busy += [one["duration"] for one in calls]


def limit(name: str = "limit00", *, of: str = "ann", wait: Wait | None = None) -> Limit:
    """Return a limit with room."""
    return Limit(Scope(name, (("user", of),)), PLENTY, wait=wait)


Measure = Callable[[Bench, int], Awaitable[Times]]


async def _limits(bench: Bench, number: int) -> Times:
    return await bench.requests(*(limit(name) for name in NAMES[:number]))


async def _in_flight(bench: Bench, number: int) -> Times:
    await bench.fill(IN_FLIGHT.format(LIVES), number)
    return await bench.requests(limit())


async def _scopes(bench: Bench, number: int) -> Times:
    await bench.fill(IN_SCOPE, number)
    return await bench.requests(limit(of="somebody"))


async def _workers(bench: Bench, number: int) -> Times:
    await bench.fill(WORKER, number)
    return await bench.requests(limit())


async def _waiting(bench: Bench, number: int) -> Times:
    """Let `number` wait, users by turns, while a hundred are in flight; each that ends gives a turn."""
    held = await _crowd(bench, 100, number)
    async with _Measuring(bench.client) as busy:
        for lease in held:
            await bench.exchange(releases=[Ask(lease)])
    return Times(median(busy), max(busy))


async def _crowd(bench: Bench, holding: int, waiting: int) -> Sequence[Lease]:
    """Let so many hold the slots of a limit, and so many wait for them."""
    await bench.exchange()

    def full(number: int) -> Lease:
        wait = Wait(3600, 1_000_000, f"user{number % 50}")
        return bench.lease(Limit(Scope("limit00"), holding, wait=wait))

    held = [full(0) for _ in range(holding)]
    await bench.exchange(asks=[Ask(lease, Patience()) for lease in held])
    for start in range(0, waiting, 16):
        crowd = [full(number) for number in range(start, min(start + 16, waiting))]
        await bench.exchange(asks=[Ask(lease, Patience()) for lease in crowd])
    return held


@dataclass(frozen=True)
class Dimension:
    """What grows, in these steps, and in which order the time may grow with it."""

    name: str
    measure: Measure
    steps: Sequence[int]
    order: str


DIMENSIONS = (
    Dimension("limits", _limits, (1, 2, 4, 8, 16), "n"),
    Dimension("in flight in the scope", _in_flight, (10, 100, 1_000, 10_000, 100_000), "log n"),
    Dimension("live scopes", _scopes, (10, 1_000, 100_000, 1_000_000), "log n"),
    Dimension("workers", _workers, (1, 4, 16, 64), "log n"),
    Dimension("waiting", _waiting, (0, 10, 100, 1_000, 10_000), "log n"),
)


async def growth(server: RedisServer) -> Mapping[str, Mapping[int, Times]]:
    """Measure every dimension at each of its steps, in an empty Redis each."""
    found: dict[str, dict[int, Times]] = {}
    for dimension in DIMENSIONS:
        found[dimension.name] = {}
        for step in dimension.steps:
            server.client.flushall()
            bench = Bench(server.port)
            found[dimension.name][step] = await dimension.measure(bench, step)
            await bench.client.aclose()
    server.client.flushall()
    return found


def _leases(bench: Bench) -> Sequence[Lease]:
    """Return as many as a call takes along, each slot in another scope."""
    users = [f"user{number}" for number in range(MOST_SLOTS // 4)]
    return [bench.lease(*(limit(name, of=user) for name in NAMES[:4])) for user in users]


async def _admissions(bench: Bench) -> None:
    await bench.exchange(asks=[Ask(lease) for lease in _leases(bench)])


async def _renewal(bench: Bench) -> None:
    await bench.exchange(renewals=_leases(bench))


async def _mass_expiry(bench: Bench) -> None:
    await bench.fill(IN_FLIGHT.format(LAPSED), 100_000)
    full = Limit(Scope("limit00", (("user", "ann"),)), 0)
    await bench.exchange(asks=[Ask(bench.lease(full))])


async def _turns(bench: Bench) -> None:
    held = await _crowd(bench, MOST_SLOTS, 1_000)
    await bench.exchange(releases=[Ask(lease) for lease in held])


CALLS: Mapping[str, Callable[[Bench], Awaitable[None]]] = {
    f"{MOST_SLOTS} slots taken, each in a scope of its own": _admissions,
    f"{MOST_SLOTS} slots renewed, the same": _renewal,
    "100,000 leases lapsed at once": _mass_expiry,
    f"{MOST_SLOTS} slots freed for those who wait": _turns,
}
"""The largest that a worker makes, and what may happen to one."""

REPEATS = 10


async def blocking(server: RedisServer) -> Mapping[str, Sequence[float]]:
    """Return for how many microseconds the last call of each kind kept Redis busy, each time."""
    found: dict[str, list[float]] = {name: [] for name in CALLS}
    for _ in range(REPEATS):
        for name, call in CALLS.items():
            server.client.flushall()
            bench = Bench(server.port)
            await bench.exchange()
            async with _Measuring(bench.client) as busy:
                await call(bench)
            found[name].append(busy[-1])
            await bench.client.aclose()
    return found


async def memory(server: RedisServer) -> Mapping[str, float]:
    """Return how many bytes of Redis' memory a lease takes, and a scope with one lease."""
    server.client.flushall()
    bench = Bench(server.port)
    lease = await bench.fill(IN_FLIGHT.format(LIVES), 100_000)
    scope = await bench.fill(IN_SCOPE, 100_000)
    await bench.client.aclose()
    return {"a lease in one limit": lease, "a scope with one lease": scope}


def main(folder: Path) -> None:
    """Measure, and print the tables."""
    server = RedisServer.start(folder)
    try:
        grown = asyncio.run(growth(server))
        blocked = asyncio.run(blocking(server))
        taken = asyncio.run(memory(server))
    finally:
        server.stop()
    console = Console(width=120)
    for dimension in DIMENSIONS:
        table = Table(
            dimension.name, "µs of Redis a request", "longest call µs", title=f"may grow as {dimension.order}"
        )
        for step, times in grown[dimension.name].items():
            table.add_row(f"{step:,}", f"{times.request:.0f}", f"{times.call:.0f}")
        console.print(table)
    table = Table("one call", "µs for which Redis was busy")
    for name, busy in blocked.items():
        table.add_row(name, spread(busy, 0))
    console.print(table)
    table = Table("bytes of Redis", "")
    for name, size in taken.items():
        table.add_row(name, f"{size:.0f}")
    console.print(table)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        main(Path(name))
