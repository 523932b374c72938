"""A worker that calls a Redis by itself, and how long its calls keep Redis busy, by Redis' own slow log."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from statistics import median
from typing import Any

from redis.asyncio import Redis

from litellm_parallel_limits.limits import Lease, Limit, Patience, Scope, Wait
from litellm_parallel_limits.stores.exchange import Ask, Exchange, Reply
from litellm_parallel_limits.stores.redis import ROOT, RedisBackend
from tests.rig.process import HOST

TTL = 30.0
REQUESTS = 200
PLENTY = 10_000_000
NAMES = tuple(f"limit{number:02}" for number in range(16))
"""Of limits."""

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


@dataclass(frozen=True)
class Times:
    """Microseconds for which Redis was busy with a request, in the median, and with a call at most."""

    request: float
    call: float


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
        async with Measuring(self.client) as busy:
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


class Measuring:
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


def waiter(bench: Bench, capacity: int, number: int) -> Lease:
    """Return a lease of one of fifty users, who wait by turns where the `capacity` is full."""
    wait = Wait(3600, 1_000_000, f"user{number % 50}")
    return bench.lease(Limit(Scope("limit00"), capacity, wait=wait))


async def crowd(bench: Bench, holding: int, waiting: int) -> Sequence[Lease]:
    """Let so many hold the slots of a limit, and so many wait for them; return the leases that hold."""
    await bench.exchange()
    held = [waiter(bench, holding, 0) for _ in range(holding)]
    await bench.exchange(asks=[Ask(lease, Patience()) for lease in held])
    for start in range(0, waiting, 16):
        some = [waiter(bench, holding, number) for number in range(start, min(start + 16, waiting))]
        await bench.exchange(asks=[Ask(lease, Patience()) for lease in some])
    return held
