"""Where the leases of each store are kept, and how time passes there."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol
from unittest import mock

from fakeredis import FakeAsyncRedis, FakeServer
from redis.asyncio import Redis

from litellm_parallel_limits.limits import Admitted, Answer, Scope, Waiting
from litellm_parallel_limits.stores import Holding, Store, line, shared
from litellm_parallel_limits.stores.exchange import Ask, Backend, Exchange, Grant, Reply, Stands
from litellm_parallel_limits.stores.host import HostBackend
from litellm_parallel_limits.stores.memory import MemoryStore
from litellm_parallel_limits.stores.redis import RedisBackend, RedisClient
from litellm_parallel_limits.stores.shared import SharedStore
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
  local left = redis.call('PTTL', key)
  if left > passed then
    redis.call('PEXPIRE', key, left - passed)
  elseif left >= 0 then
    redis.call('DEL', key)
  end
end
"""
"""Brings the end of every key nearer by so many milliseconds."""

MOMENT = 0.002
"""Seconds: no two losses come in the same millisecond."""

TIME = "redis.call('TIME')"
"""How a script asks what time it is; the answer's first part is in seconds."""


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


class Ground(Protocol):
    """What leases are kept in, as a backend sees it."""

    def backend(self) -> Backend:
        """Return another worker's way to it."""
        ...

    async def age(self, seconds: float) -> None:
        """Let time pass."""
        ...


class Perils(Protocol):
    """What can become of it. It `has_late_calls` where a call may come after a later one of its worker."""

    has_late_calls: bool

    async def lose(self) -> None:
        """Forget everything, as a restart does."""
        ...

    async def save(self) -> Any:
        """Return its state."""
        ...

    async def lines(self) -> set[str]:
        """Return the places in which something is kept of those that wait."""
        ...

    async def restore(self, state: Any) -> None:
        """Go back to a state, but not in time."""
        ...


class SharedStorage(Ground, Perils, Protocol):
    """What stores of several workers have in common."""

    def store(self, worker: str = "w1") -> SharedStore:
        """Return this worker's store."""
        ...


OpenStorage = Callable[[], AbstractAsyncContextManager[Storage]]
OpenShared = Callable[[], AbstractAsyncContextManager[SharedStorage]]
Connect = Callable[..., Any]
Tables = dict[str, list[tuple[Any, ...]]]
RedisState = tuple[int, list[tuple[bytes, int, bytes]]]


@dataclass
class PassingTime:
    """The time of this machine, which a test moves on."""

    passed: float = 0.0

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return time.monotonic() + self.passed

    def time(self) -> float:
        """Return seconds since 1970."""
        return time.time() + self.passed


@contextmanager
def passing_time() -> Iterator[PassingTime]:
    """Let every worker of this process go by one time."""
    passing = PassingTime()
    with mock.patch.object(shared, "time", passing):
        yield passing


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


class OneWorker:
    """A store in this process as a backend, for a worker that could be one of several."""

    name = "memory"

    def __init__(self) -> None:
        self._clock = Clock()
        self._store = MemoryStore(ttl=TTL, clock=self._clock)
        self._granted: list[Grant] = []

    def backend(self) -> Backend:
        """Return the way to it."""
        return self

    async def age(self, seconds: float) -> None:
        """Advance the clock."""
        self._clock.advance(seconds)

    def now_ms(self) -> int:
        """Return the time."""
        return self._store.now_ms()

    async def exchange(self, exchange: Exchange) -> Reply:
        """Ask the process' only store."""
        for released in (ask.lease for ask in exchange.releases):
            self._store.release(released)
        await self._store.renew(exchange.renewals)
        answers = [await self._answer(ask) for ask in exchange.asks]
        return Reply(self.now_ms(), self._store.workers, -1, answers)

    async def _answer(self, ask: Ask) -> Answer | Stands:
        if ask.patience is None:
            return await self._store.acquire(ask.lease)
        place = await self._store.wait(ask.lease, ask.patience)
        if not isinstance(place, Waiting):
            return place
        place.turn.add_done_callback(self._hear)
        return Stands(place.limit, place.in_flight, place.waiting)

    def _hear(self, turn: asyncio.Future[Admitted]) -> None:
        given = turn.result()
        others = tuple(count - 1 for count in given.in_flight)
        self._granted.append(Grant(given.lease.id, given.lease.apart, others))

    async def grants(self, worker: str) -> AsyncGenerator[Sequence[Grant], None]:  # noqa: ARG002 (the only one)
        """Yield what was given to those that wait."""
        while True:
            granted, self._granted = self._granted, []
            yield granted
            await asyncio.sleep(TTL)

    async def waiting(self, scopes: Sequence[Scope]) -> Sequence[int]:
        """Return how many wait that came for a slot in each of `scopes`, of those in use."""
        found = (await self._store.snapshot()).waiting
        return [found.get(scope, 0) for scope in scopes]

    async def lines(self) -> set[str]:
        """Return the tables of those that wait that are not empty."""
        waiters = self._store._waiters  # noqa: SLF001 (nobody else can see them)
        if waiters is None:
            return set()
        return {name for name in line.TABLES if waiters.execute(f"SELECT 1 FROM {name}").fetchone()}

    async def holdings(self) -> AsyncIterator[Sequence[Holding]]:
        """Yield every slot in use."""
        yield (await self._store.snapshot()).holdings

    async def free(self, scopes: Sequence[Scope], lease: str | None) -> int:
        """Free slots."""
        return sum([await self._store.free(scope=scope, lease=lease) for scope in scopes])

    async def note(self, place: str, amounts: Mapping[str, int], *, seconds: int, most: int) -> None:
        """Add to what was noted."""
        await self._store.note(place, amounts, seconds=seconds, most=most)

    async def noted(self, places: Sequence[str]) -> Sequence[Mapping[str, int]]:
        """Return what was noted."""
        return await self._store.noted(places)


class InFile:
    """A file of one machine, which every worker opens for itself."""

    has_late_calls = False

    def __init__(self, path: Path, passing: PassingTime) -> None:
        self.path = path
        self._time = passing
        self._backends: list[HostBackend] = []
        self._stores: dict[str, SharedStore] = {}

    def backend(self) -> HostBackend:
        """Return another worker's way to the file."""
        self._backends.append(HostBackend(self.path, ttl=TTL, timeout=PATIENCE, clock=self._time.monotonic))
        return self._backends[-1]

    def store(self, worker: str = "w1") -> SharedStore:
        """Return this worker's store."""
        if worker not in self._stores:
            self._stores[worker] = shared_store(self.backend(), worker)
        return self._stores[worker]

    async def age(self, seconds: float) -> None:
        """Set the machine's clock forward."""
        self._time.passed += seconds

    async def lose(self) -> None:
        """Delete the file. That takes a moment."""
        await self.age(MOMENT)
        for file in self.path.parent.glob(f"{self.path.name}*"):
            file.unlink()

    async def lines(self) -> set[str]:
        """Return the tables of those that wait that are not empty."""
        return {name for name, rows in (await self.save()).items() if name in line.TABLES and rows}

    async def save(self) -> Tables:
        """Return what is in the file."""
        with closing(sqlite3.connect(self.path)) as connection:
            return {
                name: connection.execute(f"SELECT * FROM {name}").fetchall() for name in tables(connection)
            }

    async def restore(self, state: Tables) -> None:
        """Let the file have what it had."""
        await self.age(MOMENT)
        with closing(sqlite3.connect(self.path)) as connection, connection:
            for name in tables(connection):
                connection.execute(f"DELETE FROM {name}")
                for row in state.get(name, ()):
                    connection.execute(f"INSERT INTO {name} VALUES ({', '.join('?' * len(row))})", row)

    async def close(self) -> None:
        """Let every worker close the file."""
        while self._backends:
            await self._backends.pop().close()


class Later:
    """A Redis client whose scripts find the clock of Redis ahead by so many milliseconds."""

    def __init__(self, client: Any) -> None:
        self.ahead_ms = 0
        self.client = client
        self._scripts: dict[str, Any] = {}

    def register_script(self, script: str) -> Callable[..., Awaitable[Any]]:
        """Return `script` as a callable."""
        assert script.count(f"{TIME}\n") == script.count("redis.call('TIME'")

        def run(keys: Sequence[str], args: Sequence[str | int]) -> Awaitable[Any]:
            seconds, rest = divmod(self.ahead_ms, 1000)
            ahead = f"time[1] = time[1] + {seconds} time[2] = time[2] + {rest * 1000}"
            text = script.replace(TIME, f"{TIME} {ahead}") if self.ahead_ms else script
            if text not in self._scripts:
                self._scripts[text] = self.client.register_script(text)
            called: Awaitable[Any] = self._scripts[text](keys, args)
            return called

        return run

    def zrange(self, name: str, start: int, end: int) -> Awaitable[Any]:
        """Return members of a sorted set."""
        found: Awaitable[Any] = self.client.zrange(name, start, end)
        return found

    def xread(self, streams: Any, *, count: int, block: int | None) -> Awaitable[Any]:
        """Return what is new in streams."""
        found: Awaitable[Any] = self.client.xread(streams, count=count, block=block)
        return found


class InRedis:
    """A database of a Redis, or of what behaves like one."""

    has_late_calls = True

    def __init__(self, client: Any, passing: PassingTime) -> None:
        self.client = client
        self.later = Later(client)
        self._time = passing
        self._stores: dict[str, SharedStore] = {}

    def backend(self) -> RedisBackend:
        """Return a worker's way to it."""
        return RedisBackend(self.later, self.later, ttl=TTL)

    def store(self, worker: str = "w1") -> SharedStore:
        """Return this worker's store."""
        if worker not in self._stores:
            self._stores[worker] = shared_store(self.backend(), worker)
        return self._stores[worker]

    async def age(self, seconds: float) -> None:
        """Set the clock of Redis forward."""
        passed_ms = round(seconds * 1000)
        await self.client.eval(AGE, 0, passed_ms)
        self.later.ahead_ms += passed_ms
        self._time.passed += seconds

    async def lose(self) -> None:
        """Empty the database. That takes a moment."""
        await self.age(MOMENT)
        await self.client.flushdb()

    async def lines(self) -> set[str]:
        """Return the kinds of keys of those that wait that are there."""
        kinds = {key.decode().split(":")[1] for key in await self.client.keys()}
        return kinds - {"lease", "apart", "workers", "scopes", "worker", "epoch", "wake"}

    async def save(self) -> RedisState:
        """Return every key with its end and its value."""
        keys = await self.client.keys()
        return self.later.ahead_ms, [
            (key, await self.client.pttl(key), await self.client.dump(key)) for key in keys
        ]

    async def restore(self, state: RedisState) -> None:
        """Let the database have what it had, but for the keys that have ended since."""
        ahead_ms, saved = state
        await self.lose()
        for key, left, value in saved:
            if left < 0:
                await self.client.restore(key, 0, value)
            elif (left := left - (self.later.ahead_ms - ahead_ms)) > 0:
                await self.client.restore(key, left, value)

    async def close(self) -> None:
        """Let every worker finish what it is about."""
        for store in self._stores.values():
            await store.snapshot()
        await self.client.aclose()


def shared_store(
    backend: Backend, worker: str = "w1", *, timeout: float = PATIENCE, workers: int = 1
) -> SharedStore:
    """Return a worker's store in `backend`."""
    return SharedStore(backend, worker=worker, ttl=TTL, timeout=timeout, workers=workers)


def redis_store(
    client: RedisClient, worker: str = "w1", *, timeout: float = PATIENCE, workers: int = 1, prefix: str = ""
) -> SharedStore:
    """Return a worker's store in the Redis of `client`."""
    backend = RedisBackend(client, ttl=TTL, prefix=prefix)
    return shared_store(backend, worker, timeout=timeout, workers=workers)


def tables(connection: sqlite3.Connection) -> list[str]:
    """Return the names of all tables of a file."""
    return [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]


@asynccontextmanager
async def in_memory() -> AsyncIterator[Storage]:
    """Return a storage in this process."""
    yield InMemory()


@asynccontextmanager
async def in_file() -> AsyncIterator[InFile]:
    """Return a storage in a file that is not there yet."""
    with TemporaryDirectory() as folder, passing_time() as passing:
        storage = InFile(Path(folder) / "leases.sqlite", passing)
        yield storage
        await storage.close()


@asynccontextmanager
async def in_redis(connect: Connect) -> AsyncIterator[InRedis]:
    """Return a storage in the Redis that `connect` leads to, empty at first."""
    with passing_time() as passing:
        storage = InRedis(connect(), passing)
        await storage.client.flushdb()
        yield storage
        await storage.close()


def fake_client(**options: Any) -> Any:
    """Return a client of a new fakeredis."""
    return FakeAsyncRedis(server=FakeServer(), **options)


def real_client(port: int, **options: Any) -> Any:
    """Return a client of a real server."""
    return Redis(host=HOST, port=port, db=DATABASE, **options)
