"""Storages in which no time passes but what a test lets pass: who comes when is the same in each run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from tests.stores.storages import TIME, Connect, Ground, InFile, InRedis, Later, OneWorker, PassingTime

BEGUN = 1_000_000
"""Seconds since some day, when each begins."""

CLOCK = "test:clock"
"""The key that holds the time, as Redis would tell it."""


class Stage(Ground, Protocol):
    """A storage whose time a test moves on."""

    async def lines(self) -> set[str]:
        """Return the places in which something is kept of those that wait."""
        ...


OpenStage = Callable[[], AbstractAsyncContextManager[Stage]]


@dataclass
class StoppedTime(PassingTime):
    """A time that only a test moves on."""

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return BEGUN + self.passed

    def time(self) -> float:
        """Return seconds since 1970."""
        return BEGUN + self.passed


class Stopped(Later):
    """A Redis client whose scripts find the time that a test has set."""

    def register_script(self, script: str) -> Callable[..., Awaitable[Any]]:
        """Return `script` as a callable."""
        assert script.count(f"{TIME}\n") == script.count("redis.call('TIME'")
        run = self.client.register_script(script.replace(TIME, f"redis.call('HMGET', '{CLOCK}', 's', 'us')"))

        def called(keys: Sequence[str], args: Sequence[str | int]) -> Awaitable[Any]:
            answer: Awaitable[Any] = run(keys, args)
            return answer

        return called


class OnRedis(InRedis):
    """A database of a Redis in which no time passes by itself."""

    def __init__(self, client: Any) -> None:
        super().__init__(client, StoppedTime())
        self.later = Stopped(client)

    async def age(self, seconds: float) -> None:
        """Set the clock of Redis forward."""
        if seconds > 1:  # or no key is near its end
            await super().age(seconds)
        else:
            self._time.passed += seconds
        seconds, rest = divmod(round(self._time.time() * 1e6), 1_000_000)
        await self.client.hset(CLOCK, mapping={"s": seconds, "us": rest})

    async def lines(self) -> set[str]:
        """Return the kinds of keys of those that wait that are there."""
        return await super().lines() - {CLOCK.split(":")[1]}


@asynccontextmanager
async def on_memory() -> AsyncIterator[Stage]:
    """Return a stage in this process, for one worker."""
    yield OneWorker()


@asynccontextmanager
async def on_file() -> AsyncIterator[Stage]:
    """Return a stage in a file that is not there yet."""
    with TemporaryDirectory() as folder:
        storage = InFile(Path(folder) / "leases.sqlite", StoppedTime())
        yield storage
        await storage.close()


@asynccontextmanager
async def on_redis(connect: Connect) -> AsyncIterator[Stage]:
    """Return a stage in the Redis that `connect` leads to, empty at first."""
    storage = OnRedis(connect())
    await storage.client.flushdb()
    await storage.age(0)
    yield storage
    await storage.client.aclose()
