"""A process with a proxy inside, that measures when it is told to: so ways on different stores take turns."""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import uvloop
from redis.asyncio import Redis

from tests.benchmarks.inside import config, inside
from tests.benchmarks.ways import Asking, Way, bare, nothing, ours, theirs
from tests.rig.process import HOST

HOLD_SECONDS = 0.005
"""In the mean, for which a request is at its provider."""

AFTERWARDS_SECONDS = 0.05
"""In which what was released is told."""


@dataclass(frozen=True)
class Measured:
    """Microseconds for one request: of this process' CPU, and for which it waited, in the median."""

    cpu: float
    waited: float


@dataclass(frozen=True)
class Load:
    """So many `requests`, so many at a time."""

    concurrent: int
    requests: int


class Child:
    """A worker of a proxy with this `store`; `redis_port` where it has a Redis."""

    def __init__(self, folder: Path, store: str, redis_port: int | None = None) -> None:
        folder.mkdir()
        self._process = ProcessPoolExecutor(
            1, mp_context=get_context("spawn"), initializer=_begin, initargs=(folder, store, redis_port)
        )

    def measure(self, way: str, load: Load) -> Future[Measured]:
        """Begin to measure a way."""
        return self._process.submit(_measure, way, load)

    def stop(self) -> None:
        """End the process."""
        self._process.shutdown()


PATIENCE_MS = 5_000
"""Of workers that write to one file: together they ask for more than it bears, and have to wait for it."""

Hold = Callable[[], Awaitable[None]]

_ways: dict[str, Way] = {}
_loop = uvloop.new_event_loop()  # LiteLLM's server has it


def _begin(folder: Path, store: str, redis_port: int | None) -> None:
    _loop.run_until_complete(_start(folder, store, redis_port))


async def _start(folder: Path, store: str, redis_port: int | None) -> None:
    told = config(store=store, redis_port=redis_port)
    if store == "host":
        settings = told["litellm_settings"]["parallel_limits"]
        settings |= {"host_path": str(folder.parent / "leases"), "store_timeout_ms": PATIENCE_MS}
    proxy = await AsyncExitStack().enter_async_context(inside(told, folder))
    ways = [nothing(), theirs(proxy), ours(proxy), ours(proxy, limited=False)]
    if redis_port is not None:
        ways.append(bare(Redis(host=HOST, port=redis_port)))
    _ways.update({way.name: way for way in ways})


def _measure(way: str, load: Load) -> Measured:
    return _loop.run_until_complete(measure(_ways[way], load))


async def measure(way: Way, load: Load) -> Measured:
    """Let the requests come."""
    requests = [(way.asking(), _holding(random.uniform(0, 2 * HOLD_SECONDS))) for _ in range(load.requests)]
    gc.collect()
    gc.freeze()  # or what is made beforehand is looked at again and again
    began = time.process_time()
    waited = await _all(way, load.concurrent, requests)
    await asyncio.sleep(AFTERWARDS_SECONDS)
    cpu = time.process_time() - began
    gc.unfreeze()
    return Measured(cpu / load.requests * 1e6, median(waited) * 1e6)


async def _all(way: Way, concurrent: int, requests: Sequence[tuple[Asking, Hold]]) -> list[float]:
    waiting, waited = iter(requests), []

    async def one_after_the_other() -> None:
        for request in waiting:
            waited.append(await asyncio.create_task(way.request(*request)))  # each in a context of its own
            await asyncio.sleep(0)

    await asyncio.gather(*(one_after_the_other() for _ in range(concurrent)))
    return waited


def _holding(seconds: float) -> Hold:
    async def hold() -> None:
        await asyncio.sleep(seconds)

    return hold
