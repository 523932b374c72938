"""Where the leases of each store are kept, and how time passes there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

from fakeredis import FakeAsyncRedis, FakeServer
from redis.asyncio import Redis

from litellm_parallel_limits.stores import Store
from litellm_parallel_limits.stores.memory import MemoryStore
from litellm_parallel_limits.stores.redis import RedisStore
from tests.clock import Clock
from tests.rig.process import HOST

TTL = 30.0
"""Seconds that a lease lives here: so long that only the tests make it lapse."""

PATIENCE = 5.0
"""Seconds until a store gives up here: a busy machine is no failure."""

DATABASE = 1
"""Of the Redis server, which other tests share."""

AGE = """
local passed = tonumber(ARGV[1])
for _, key in ipairs(redis.call('KEYS', '*')) do
  local is_set = redis.call('TYPE', key).ok == 'zset'
  local held = is_set and redis.call('ZRANGE', key, 0, -1, 'WITHSCORES') or {}
  for i = 1, #held, 2 do
    redis.call('ZADD', key, held[i + 1] - passed, held[i])
  end
  local left = redis.call('PTTL', key)
  if left > passed then
    redis.call('PEXPIRE', key, left - passed)
  elseif left >= 0 then
    redis.call('DEL', key)
  end
end
"""
"""Moves every deadline back by so many milliseconds, those of the keys themselves as well."""


class Storage(Protocol):
    """What the workers' stores have in common."""

    def store(self, worker: str = "w1") -> Store:
        """Return the store as this worker finds it now."""
        ...

    async def age(self, seconds: float) -> None:
        """Let time pass."""
        ...

    async def lose(self) -> None:
        """Forget everything, as a restart does."""
        ...


OpenStorage = Callable[[], AbstractAsyncContextManager[Storage]]
Connect = Callable[..., Any]


class InMemory:
    """The one worker of a process without Redis."""

    def __init__(self) -> None:
        self._clock = Clock()
        self._store = MemoryStore(ttl=TTL, clock=self._clock)

    def store(self, worker: str = "w1") -> Store:  # noqa: ARG002 (there is only one)
        """Return the process' only store."""
        return self._store

    async def age(self, seconds: float) -> None:
        """Advance the clock."""
        self._clock.advance(seconds)

    async def lose(self) -> None:
        """Begin with a new store."""
        self._store = MemoryStore(ttl=TTL, clock=self._clock)


class InRedis:
    """A database of a Redis, or of what behaves like one."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self._stores: dict[str, RedisStore] = {}

    def store(self, worker: str = "w1") -> RedisStore:
        """Return this worker's store."""
        if worker not in self._stores:
            self._stores[worker] = RedisStore(self.client, worker=worker, ttl=TTL, timeout=PATIENCE)
        return self._stores[worker]

    async def age(self, seconds: float) -> None:
        """Move the deadlines back."""
        await self.client.eval(AGE, 0, int(seconds * 1000))

    async def lose(self) -> None:
        """Empty the database."""
        await self.client.flushdb()

    async def close(self) -> None:
        """Let every worker finish what it is about."""
        for store in self._stores.values():
            await store.snapshot()
        await self.client.aclose()


@asynccontextmanager
async def in_memory() -> AsyncIterator[Storage]:
    """Return a storage in this process."""
    yield InMemory()


@asynccontextmanager
async def in_redis(connect: Connect) -> AsyncIterator[InRedis]:
    """Return a storage in the Redis that `connect` leads to, empty at first."""
    storage = InRedis(connect())
    await storage.lose()
    yield storage
    await storage.close()


def fake_client(**options: Any) -> Any:
    """Return a client of a new fakeredis."""
    return FakeAsyncRedis(server=FakeServer(), **options)


def real_client(port: int, **options: Any) -> Any:
    """Return a client of a real server."""
    return Redis(host=HOST, port=port, db=DATABASE, **options)
