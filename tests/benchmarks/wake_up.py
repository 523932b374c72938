"""`python -m tests.benchmarks.wake_up`: from the release of a slot to the admission of the one who waits.

Workers are processes. All go for the only slot, hold it for a moment, and go for it again, so that from
each release to the next admission it is one who waited that is woken. The ways are measured in turns,
in several rounds, on the same Redis; moments are of the monotonic clock, which all processes share.
"""

from __future__ import annotations

import asyncio
import math
import random
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

from redis.asyncio import Redis
from rich.console import Console
from rich.table import Table

from litellm_parallel_limits.limiter import Limiter, Permit
from litellm_parallel_limits.limits import Limit, Patience, Scope, Wait
from litellm_parallel_limits.stores.exchange import Backend
from litellm_parallel_limits.stores.host import HostBackend
from litellm_parallel_limits.stores.redis import RedisBackend
from litellm_parallel_limits.stores.shared import SharedStore
from litellm_parallel_limits.waiting import Wish
from tests.benchmarks.figures import quantile, spread
from tests.rig.polling import until
from tests.rig.process import HOST
from tests.rig.redis_server import RedisServer

ROUNDS = 3
SECONDS = 2.0
"""That a way is measured in a round."""

WARM_SECONDS = 0.5
"""Before that, and for each hundred who go for the slot: until all of them have asked."""

HOLD_SECONDS = (0.03, 0.06)
"""At random, so that no release keeps step with those who poll."""

REST_SECONDS = 0.02
"""After a release, where only two go for the slot: who polls must not find what it has just given back."""

TTL = 6.0
LONG = 600.0
BEGIN_SECONDS = 0.5
"""Until a worker is ready, once its process runs and the stores are settled."""

Take = Callable[[], Awaitable[Callable[[], Awaitable[None]]]]
"""Returns with the slot taken: what gives it back."""


@dataclass(frozen=True)
class Way:
    """How one who waits learns of the slot: in `store`, asking every `poll` seconds or told of it.

    `others` wait behind the one whose turn it is.
    """

    store: str
    poll: float = 0
    workers: int = 2
    others: int = 0

    @property
    def name(self) -> str:
        """What the table calls it."""
        if self.store == "blpop":
            return "BLPOP, RPUSH"
        return f"{self.store}, asked every {self.poll * 1000:.0f} ms" if self.poll else f"{self.store}, told"


TOLD = ("redis", "host")
PAIRS = [
    Way(store, poll, workers)
    for workers in (2, 1)
    for store, poll in (("blpop", 0), *((name, poll) for name in TOLD for poll in (0, 0.01, 0.05)))
]
CROWDS = [Way(store, others=others) for others in (100, 1000) for store in TOLD]


@dataclass(frozen=True)
class Place:
    """Where the slot is, and when it is measured, by the monotonic clock."""

    port: int
    file: Path
    name: str
    begins: float
    ends: float


@dataclass(frozen=True)
class Held:
    """Who had the slot, from when to when."""

    worker: int
    since: float
    until: float


def work(way: Way, place: Place, worker: int) -> list[Held]:
    """Return when this worker had the slot."""
    return asyncio.run(_work(way, place, worker))


async def _work(way: Way, place: Place, worker: int) -> list[Held]:
    held: list[Held] = []
    many = (2 + way.others) // way.workers
    async with _taking(way, place, worker) as take:
        await asyncio.sleep(place.begins - time.monotonic())
        goers = [asyncio.create_task(_go(way, place, worker, take, held)) for _ in range(many)]
        await asyncio.sleep(place.ends - time.monotonic())
        pending = set(goers)
        while pending:  # redis-py can swallow a cancellation that comes with the end of BLPOP's time
            for goer in pending:
                goer.cancel()
            _, pending = await asyncio.wait(pending, timeout=0.5)
    return held


async def _go(way: Way, place: Place, worker: int, take: Take, held: list[Held]) -> None:
    await asyncio.sleep(random.uniform(0, _warm(way) / 2))  # or all of a worker would come before the others
    while True:
        give_back = await take()
        since = time.monotonic()
        await asyncio.sleep(random.uniform(*HOLD_SECONDS))
        held.append(Held(worker, since, time.monotonic()))
        await give_back()
        if not way.others:
            await asyncio.sleep(REST_SECONDS + way.poll)


@asynccontextmanager
async def _taking(way: Way, place: Place, worker: int) -> AsyncIterator[Take]:
    clients = [Redis(host=HOST, port=place.port, socket_timeout=1, socket_connect_timeout=1) for _ in "12"]
    if way.store == "blpop":
        if worker == 0:
            await clients[0].delete(place.name)
            await clients[0].rpush(place.name, "slot")
        yield _by_list(clients[0], place.name)
    else:
        backend: Backend = RedisBackend(*clients, ttl=TTL)
        if way.store == "host":
            backend = HostBackend(place.file, ttl=TTL)
        store = SharedStore(backend, worker=f"{place.name}-{worker}", ttl=TTL)
        await _settled(store)
        limiter = Limiter(store, ttl=TTL, timeout=2, worker=f"{place.name}-{worker}")
        yield _by_limiter(limiter, way, place)
        await store.renew(())  # the last releases are told
    for client in clients:
        await client.aclose()


async def _settled(store: SharedStore) -> None:
    async def settled() -> bool:
        await store.renew(())
        return store.settled

    await until(settled, 4 * TTL, lambda: "the store is not settled")


def _by_list(client: Any, name: str) -> Take:
    async def give_back() -> None:
        await client.rpush(name, "slot")

    async def take() -> Callable[[], Awaitable[None]]:
        while await client.blpop([name], timeout=0.5) is None:
            pass
        return give_back

    return take


def _by_limiter(limiter: Limiter, way: Way, place: Place) -> Take:
    wait = None if way.poll else Wait(LONG, 10_000)
    limits = [Limit(Scope(place.name), 1, wait=wait)]
    wish = None if way.poll else _wish(limits)

    async def take() -> Callable[[], Awaitable[None]]:
        while not isinstance(permit := await limiter.admit(limits, wish=wish), Permit):  # noqa: ASYNC110 (polling is what is measured)
            await asyncio.sleep(way.poll)

        async def give_back() -> None:
            permit.release()

        return give_back

    return take


def _wish(limits: Sequence[Limit]) -> Wish:
    async def now() -> Sequence[Limit]:
        return limits

    async def never() -> None:
        await asyncio.Event().wait()

    return Wish(now, Patience(seconds=math.inf), never)


def latencies(way: Way, place: Place, held: Sequence[Held], warm: float) -> list[float]:
    """Return the milliseconds from each release to the next admission, of another worker if there is one."""
    ordered = sorted(held, key=lambda one: one.since)
    return [
        1000 * (after.since - before.until)
        for before, after in pairwise(ordered)
        if before.until > place.begins + warm and (way.workers == 1 or before.worker != after.worker)
    ]


def _warm(way: Way) -> float:
    return WARM_SECONDS * (1 + way.others / 100)


def measure(pool: ProcessPoolExecutor, way: Way, number: int, port: int, folder: Path) -> list[float]:
    """Let the workers go for the slot, and return how long each handing over took, in milliseconds."""
    warm = _warm(way)
    begins = time.monotonic() + BEGIN_SECONDS
    place = Place(port, folder / "leases.sqlite", f"slot{number}", begins, begins + warm + SECONDS)
    asked = [pool.submit(work, way, place, worker) for worker in range(way.workers)]
    return latencies(way, place, [one for some in asked for one in some.result()], warm)


def main() -> None:
    """Measure, and print the table."""
    ways = [*PAIRS, *CROWDS]
    found: dict[Way, list[list[float]]] = {way: [] for way in ways}
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool,
    ):
        server = RedisServer.start(Path(folder))
        try:
            for place, store in enumerate(TOLD):  # which are settled after that
                measure(pool, Way(store), -1 - place, server.port, Path(folder))
            for number in range(ROUNDS):
                for place, way in enumerate(ways):
                    mark = number * len(ways) + place
                    found[way].append(measure(pool, way, mark, server.port, Path(folder)))
        finally:
            server.stop()
    Console(width=150).print(_table(found))


def _table(found: dict[Way, list[list[float]]]) -> Table:
    table = Table("woken in", "others waiting", "how", "handings over", "p50 ms", "p99 ms", "p50 to BLPOP's")
    floors = {way.workers: _middle(rounds) for way, rounds in found.items() if way.store == "blpop"}
    for way, rounds in found.items():
        middles = [median(one) for one in rounds]
        late = quantile([value for one in rounds for value in one], 0.99)
        where = "another process" if way.workers > 1 else "the same process"
        count = sum(len(one) for one in rounds)
        ratio = median(middles) / floors[way.workers]
        told = (where, way.others, way.name, count, spread(middles), f"{late:.2f}", f"{ratio:.1f}")
        table.add_row(*(str(value) for value in told))
    return table


def _middle(rounds: Sequence[Sequence[float]]) -> float:
    return median(median(one) for one in rounds)


if __name__ == "__main__":
    main()
