"""How the cost of a request grows with how many a worker has at a time, in a store that is shared.

So many clients take four slots and give them back, again and again, on one event loop. All meet the
same four limits, which have room for everybody: what comes while a call is under way shares the next one.
"""

from __future__ import annotations

import asyncio
import gc
import time
import tracemalloc
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from redis.asyncio import Redis

from litellm_parallel_limits.limits import Admitted, Lease
from litellm_parallel_limits.stores.redis import RedisBackend
from litellm_parallel_limits.stores.shared import SharedStore
from tests.benchmarks.bench import NAMES, TTL, limit
from tests.benchmarks.figures import quantile
from tests.rig.process import HOST
from tests.rig.redis_server import RedisServer

STEPS = (1, 10, 50, 100, 1_000)
REQUESTS = 4_000
ROUNDS = 5
HELD = 10_000
LIMITS = tuple(limit(name) for name in NAMES[:4])
TIMEOUT_SECONDS = 10.0
"""Above the default, so that a moment in which the machine does something else ends no round."""


@dataclass(frozen=True)
class Shared:
    """What a request takes: µs of Redis in scripts and of its CPU in all, calls, µs of the worker's CPU.

    `waited` is in how many milliseconds 99 of 100 have their slots.
    """

    scripts: float
    redis: float
    calls: float
    worker: float
    waited: float


class _Worker:
    """A worker with a Redis, as it is in a proxy but for LiteLLM."""

    def __init__(self, port: int) -> None:
        self.client: Any = Redis(host=HOST, port=port)
        backend = RedisBackend(self.client, ttl=TTL)
        self.store = SharedStore(backend, worker="bench", ttl=TTL, timeout=TIMEOUT_SECONDS)
        self._numbers = count()

    def lease(self) -> Lease:
        """Return another lease."""
        return Lease(f"{next(self._numbers):016x}", LIMITS, "bench", "gpt-4o", self.store.now_ms())

    async def requests(self, concurrent: int) -> Sequence[float]:
        """Make the requests; return the seconds in which each had its slots."""
        left = iter(range(REQUESTS))
        waited: list[float] = []
        await asyncio.gather(*(self._client(left, waited) for _ in range(concurrent)))
        await self.store.told()
        return waited

    async def _client(self, left: Iterator[int], waited: list[float]) -> None:
        for _ in left:
            began = time.perf_counter()
            lease = self.lease()
            await self.admitted(lease)
            waited.append(time.perf_counter() - began)
            self.store.release(lease)
            await asyncio.sleep(0)  # or it goes with the client's own next one: half the calls of a proxy

    async def admitted(self, lease: Lease) -> Admitted:
        """Take the slots of a lease."""
        answer = await self.store.acquire(lease)
        assert isinstance(answer, Admitted)
        return answer


async def concurrency(server: RedisServer) -> Mapping[int, Sequence[Shared]]:
    """Measure each step, by turns; return the rounds of each."""
    found: dict[int, list[Shared]] = {step: [] for step in STEPS}
    worker = await _begin(server)
    await worker.requests(1)  # what is done only once is done after that
    for _ in range(ROUNDS):
        for step, rounds in found.items():
            rounds.append(await _measure(worker, step))
    await worker.client.aclose()
    return found


async def worker_memory(server: RedisServer) -> float:
    """Return how many bytes a worker keeps for a lease in four limits and its answer, while they last."""
    worker = await _begin(server)
    await worker.admitted(worker.lease())
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    held = [await worker.admitted(worker.lease()) for _ in range(HELD)]
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    await worker.client.aclose()
    return (after - before) / len(held)


async def _begin(server: RedisServer) -> _Worker:
    server.client.flushall()
    worker = _Worker(server.port)
    await worker.store.told()  # it learns what Redis is
    return worker


async def _measure(worker: _Worker, concurrent: int) -> Shared:
    await worker.client.config_resetstat()
    redis = await _redis_seconds(worker.client)
    gc.collect()
    began = time.process_time()
    waited = await worker.requests(concurrent)
    cpu = time.process_time() - began
    redis = await _redis_seconds(worker.client) - redis
    told = (await worker.client.info("commandstats"))["cmdstat_evalsha"]
    return Shared(
        told["usec"] / REQUESTS,
        redis / REQUESTS * 1e6,
        told["calls"] / REQUESTS,
        cpu / REQUESTS * 1e6,
        quantile(waited, 0.99) * 1e3,
    )


async def _redis_seconds(client: Any) -> float:
    told = await client.info("cpu")
    return float(told["used_cpu_user"] + told["used_cpu_sys"])
