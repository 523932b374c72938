"""In every store a slot comes back once."""

from __future__ import annotations

import asyncio

import pytest

from litellm_parallel_limits.stores import Store
from tests.samples import lease, limit
from tests.stores.asking import admitted, holders, turns


async def test_released_lease_has_no_slot(store: Store) -> None:
    """A released lease has a slot in none of its limits."""
    held = await admitted(store, lease(limit("user"), limit("team")))
    store.release(held)
    assert await holders(store) == {}


async def test_second_release_is_harmless(store: Store) -> None:
    """A second release of a lease frees nobody else's slot."""
    first, second = [await admitted(store, lease(limit(capacity=2))) for _ in range(2)]
    store.release(first)
    store.release(first)
    assert await holders(store) == {"team": {second.id}}
    store.release(first)
    assert await holders(store) == {"team": {second.id}}


async def test_release_of_an_unknown_lease_is_ignored(store: Store) -> None:
    """Releasing a lease that the store does not know does nothing."""
    held = await admitted(store, lease(limit()))
    store.release(lease(limit()))
    assert await holders(store) == {"team": {held.id}}


async def test_release_of_a_refused_lease_is_ignored(store: Store) -> None:
    """Releasing a lease that was refused takes nobody's slot."""
    held = await admitted(store, lease(limit()))
    other = lease(limit())
    await store.acquire(other)
    store.release(other)
    assert await holders(store) == {"team": {held.id}}


async def test_release_comes_before_the_next_request(store: Store) -> None:
    """A worker's release takes effect before anything it asks for later, time and again."""
    for _ in range(20):
        store.release(await admitted(store, lease(limit())))


async def test_release_comes_before_the_next_request_of_a_busy_worker(store: Store) -> None:
    """A release takes effect before a later request also while other requests are under way."""
    held = await admitted(store, lease(limit()))
    others = [asyncio.create_task(store.acquire(lease(limit("user", 9)))) for _ in range(3)]
    await turns(1)
    store.release(held)
    await admitted(store, lease(limit()))
    await asyncio.gather(*others)


async def test_release_comes_before_the_next_snapshot_of_a_busy_worker(store: Store) -> None:
    """A snapshot shows nothing that its worker released before, also while requests are under way."""
    held = await admitted(store, lease(limit()))
    other = asyncio.create_task(store.acquire(lease(limit("user"))))
    await turns(1)
    store.release(held)
    assert "team" not in await holders(store)
    await other


@pytest.mark.parametrize("number", range(1, 9))
async def test_lease_released_while_it_is_renewed_stays_released(store: Store, number: int) -> None:
    """A lease released while its renewal is on its way is not brought back by it."""
    held = await admitted(store, lease(limit()))
    renewal = asyncio.create_task(store.renew([held]))
    await turns(number)
    store.release(held)
    await renewal
    assert await holders(store) == {}
