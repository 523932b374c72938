"""Looking at what is in flight is paid by those that look, and not by requests."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from litellm_parallel_limits.history import History
from litellm_parallel_limits.limiter import Limiter
from litellm_parallel_limits.overview import FEW_SLOTS, SECONDS_A_SLOT, Overview
from litellm_parallel_limits.status import View
from litellm_parallel_limits.stores import Holding, Snapshot
from tests.clock import Clock
from tests.faulty_store import FaultyStore
from tests.samples import lease, limit


class FullStore(FaultyStore):
    """A store in which somebody holds so many `slots`, beside what is asked for."""

    slots = 0
    looks = 0

    async def snapshot(self) -> Snapshot:
        """Return what is held."""
        await asyncio.sleep(0)
        self.looks += 1
        snapshot = await super().snapshot()
        slot = Holding.of(lease(limit()), limit())
        return replace(snapshot, holdings=(*snapshot.holdings, *(slot,) * self.slots))


@pytest.fixture
def clock() -> Clock:
    """A clock that a test advances."""
    return Clock()


@pytest.fixture
def store(clock: Clock) -> FullStore:
    """A store in memory."""
    return FullStore(ttl=30, clock=clock)


@pytest.fixture
def overview(store: FullStore, clock: Clock) -> Overview:
    """What its worker shows."""
    limiter = Limiter(store, ttl=30, clock=clock)
    return Overview(lambda: limiter, History(lambda: limiter), ttl=30, clock=clock)


async def test_looks_at_few_are_taken_each_time(overview: Overview, store: FullStore) -> None:
    """Where a look costs little everybody sees what is."""
    store.slots = FEW_SLOTS
    for _ in range(3):
        await overview.status(View())
    assert store.looks == 3


async def test_looks_at_many_are_shared(overview: Overview, store: FullStore, clock: Clock) -> None:
    """What takes long to look at is shown to all for ten times as long."""
    store.slots = 5 * FEW_SLOTS
    shown = store.slots * SECONDS_A_SLOT
    await asyncio.gather(*(overview.status(View()) for _ in range(5)))
    clock.advance(shown * 0.9)
    await overview.status(View())
    assert store.looks == 1
    clock.advance(shown * 0.2)
    await overview.status(View())
    assert store.looks == 2


async def test_outage_is_not_shown_longer_than_it_lasts(overview: Overview, store: FullStore) -> None:
    """However much there is, after a look that found the store out the next one is a new one."""
    store.slots = 5 * FEW_SLOTS
    store.out = True
    assert (await overview.status(View())).degraded
    store.out = False
    await overview._limiter().beat()  # noqa: SLF001 (the store is found to be back)
    assert not (await overview.status(View())).degraded


async def test_what_was_released_is_shown_no_more(overview: Overview, store: FullStore) -> None:
    """Who releases something by hand sees that it is gone."""
    store.slots = 5 * FEW_SLOTS
    held = lease(limit())
    await store.acquire(held)
    both = (await overview.status(View())).in_flight
    assert await overview.release(scope=None, lease=held.id) == 1
    assert (await overview.status(View())).in_flight == both - 1
