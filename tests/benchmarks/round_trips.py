"""`python -m tests.benchmarks.round_trips`: calls to Redis for 1,000 requests, as Redis counts them.

Each request takes slots in four limits, holds them for a moment and gives them back. With one call for
each acquisition and one for each release there would be 2,000, however many requests come at a time.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from redis.asyncio import Redis
from rich.console import Console
from rich.table import Table

from litellm_parallel_limits.limiter import Limiter, Permit
from litellm_parallel_limits.limits import Limit, Scope
from litellm_parallel_limits.stores.redis import RedisBackend
from litellm_parallel_limits.stores.shared import SharedStore
from tests.rig.process import HOST
from tests.rig.redis_server import RedisServer

REQUESTS = 1_000
CONCURRENT = (1, 10, 50, 200)
HOLD_SECONDS = 0.005
"""In the mean."""

TTL = 30.0
LIMITS = [Limit(Scope(name, (("team", "research"),)), 10_000) for name in ("key", "user", "team", "pool")]


@dataclass(frozen=True)
class Measured:
    """What `REQUESTS` requests, so many `concurrent` ones at a time, cost."""

    concurrent: int
    calls: int
    connections: int
    seconds: float


async def measure(server: RedisServer, concurrent: int) -> Measured:
    """Let the requests come, and ask Redis how many calls there were."""
    client = Redis(host=HOST, port=server.port)
    limiter = Limiter(SharedStore(RedisBackend(client, ttl=TTL), worker=f"w{concurrent}", ttl=TTL), ttl=TTL)
    await one(limiter)  # loads the script
    server.client.config_resetstat()
    turns = asyncio.Semaphore(concurrent)
    began = time.perf_counter()
    await asyncio.gather(*(in_turn(turns, limiter) for _ in range(REQUESTS)))
    seconds = time.perf_counter() - began
    await limiter.store.renew(())  # the last releases are told
    calls = server.client.info("commandstats")["cmdstat_evalsha"]["calls"] - 1
    connections = server.client.info("stats")["total_connections_received"]
    await client.aclose()
    return Measured(concurrent, calls, connections, seconds)


async def in_turn(turns: asyncio.Semaphore, limiter: Limiter) -> None:
    """Make one request when it is its turn."""
    async with turns:
        await one(limiter)


async def one(limiter: Limiter) -> None:
    """Make one request."""
    permit = await limiter.admit(LIMITS)
    assert isinstance(permit, Permit)
    await asyncio.sleep(random.uniform(0, 2 * HOLD_SECONDS))
    permit.release()


def main() -> None:
    """Measure, and print the table."""
    table = Table("requests at a time", "calls to Redis", "for one request", "new connections")
    with tempfile.TemporaryDirectory() as folder:
        server = RedisServer.start(Path(folder))
        try:
            for concurrent in CONCURRENT:
                got = asyncio.run(measure(server, concurrent))
                told = (concurrent, got.calls, f"{got.calls / REQUESTS:.2f}", got.connections)
                table.add_row(*(str(value) for value in told))
        finally:
            server.stop()
    Console().print(table)


if __name__ == "__main__":
    main()
