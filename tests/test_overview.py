"""Looking at what is in flight is paid by those that look, and not by requests."""

from __future__ import annotations

import asyncio

import pytest

from litellm_parallel_limits.history import History
from litellm_parallel_limits.limiter import Limiter
from litellm_parallel_limits.overview import QUICK_SECONDS, REST, Overview
from litellm_parallel_limits.status import View
from litellm_parallel_limits.stores import Snapshot
from tests.clock import Clock
from tests.faulty_store import FaultyStore
from tests.samples import lease, limit


class SlowStore(FaultyStore):
    """A store with so much in it that a look takes `seconds` of its clock."""

    seconds = 0.0
    looks = 0

    async def snapshot(self) -> Snapshot:
        """Return what is held, and let the time pass."""
        await asyncio.sleep(0)
        self.looks += 1
        self._clock.advance(self.seconds)  # type: ignore[attr-defined]  # a test's clock
        return await super().snapshot()


@pytest.fixture
def clock() -> Clock:
    """A clock that a test advances."""
    return Clock()


@pytest.fixture
def store(clock: Clock) -> SlowStore:
    """A store in memory."""
    return SlowStore(ttl=30, clock=clock)


@pytest.fixture
def overview(store: SlowStore, clock: Clock) -> Overview:
    """What its worker shows."""
    limiter = Limiter(store, ttl=30, clock=clock)
    return Overview(lambda: limiter, History(lambda: limiter), ttl=30, clock=clock)


async def test_quick_looks_are_taken_each_time(overview: Overview, store: SlowStore) -> None:
    """Where a look costs little everybody sees what is."""
    for _ in range(3):
        await overview.status(View())
    assert store.looks == 3


async def test_slow_looks_are_shared(overview: Overview, store: SlowStore, clock: Clock) -> None:
    """What took long to look at is shown to all for ten times as long."""
    store.seconds = 2 * QUICK_SECONDS
    await asyncio.gather(*(overview.status(View()) for _ in range(5)))
    clock.advance(store.seconds * REST * 0.9)
    await overview.status(View())
    assert store.looks == 1
    clock.advance(store.seconds * REST * 0.2)
    await overview.status(View())
    assert store.looks == 2


async def test_outage_is_not_shown_longer_than_it_lasts(overview: Overview, store: SlowStore) -> None:
    """However long a look took that found the store out, the next one is a new one."""
    store.seconds = 2 * QUICK_SECONDS
    store.out = True
    assert (await overview.status(View())).degraded
    store.out = False
    await overview._limiter().beat()  # noqa: SLF001 (the store is found to be back)
    assert not (await overview.status(View())).degraded


async def test_what_was_released_is_shown_no_more(overview: Overview, store: SlowStore) -> None:
    """Who releases something by hand sees that it is gone."""
    store.seconds = 2 * QUICK_SECONDS
    held = lease(limit())
    await store.acquire(held)
    assert (await overview.status(View())).in_flight == 1
    assert await overview.release(scope=None, lease=held.id) == 1
    assert (await overview.status(View())).in_flight == 0
