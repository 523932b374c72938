"""Who is in line already, or closed limits and died, is no mystery to any store."""

from __future__ import annotations

import asyncio

import pytest

from litellm_parallel_limits.limits import Limit, Patience, Wait, Waiting
from litellm_parallel_limits.stores.order import MOST_PASSES
from tests.samples import lease, limit
from tests.stores.asking import admitted, holders, renewed
from tests.stores.road import Road, reply_lost
from tests.stores.storages import TTL, SharedStorage, shared_store


def awaited(name: str = "team", capacity: int = 1, *, most: int = 100) -> Limit:
    """Return a limit that may be waited for."""
    return limit(name, capacity, wait=Wait(60, most))


async def test_who_asks_again_for_want_of_a_reply_keeps_its_place(shared_storage: SharedStorage) -> None:
    """It is not counted against itself where no more may wait than do."""
    road = Road(shared_storage.backend())
    store = shared_store(road)
    full = awaited(most=1)
    held = await admitted(store, lease(full))
    road.mishaps.append(reply_lost)
    place = await store.wait(lease(full), Patience())
    assert isinstance(place, Waiting)
    assert place.waiting == 0
    store.release(held)
    await asyncio.wait_for(place.turn, 5)


@pytest.mark.parametrize("most", [1, 100])
async def test_who_asks_again_for_want_of_a_reply_stands_in_line_once(
    shared_storage: SharedStorage, most: int
) -> None:
    """Also if another limit is full by then: what it was given and has given back is not given again."""
    road = Road(shared_storage.backend())
    store = shared_store(road)
    one, two = awaited("one", most=most), awaited("two", most=most)
    held = [await admitted(store, lease(two))]
    ask = lease(one, two)

    async def reply_lost_then_full(backend: object, exchange: object) -> object:
        with pytest.raises(ConnectionError):
            await reply_lost(backend, exchange)  # type: ignore[arg-type]
        held.append(await admitted(shared_storage.store("w2"), lease(one, worker="w2")))
        raise ConnectionError

    await renewed(shared_storage.store("w2"))
    road.mishaps.append(reply_lost_then_full)  # type: ignore[arg-type]
    place = await store.wait(ask, Patience())
    store.release(held[0])
    shared_storage.store("w2").release(held[1])
    await shared_storage.store("w2").renew([])
    await store.renew([])
    if isinstance(place, Waiting):
        store.release((await asyncio.wait_for(place.turn, 5)).lease)
    await store.renew([])
    assert await holders(store) == {}


async def test_the_dead_keep_no_limit_free(shared_storage: SharedStorage) -> None:
    """Who closed limits to others and died with its worker holds up nobody, wherever it stands."""
    living, dead = shared_storage.store("living"), shared_storage.store("dead")
    for store in (living, dead):
        await renewed(store)
    one, two = awaited("one"), awaited("two")
    full = {"one": one, "two": two}
    held = {name: await admitted(living, lease(full[name], worker="living")) for name in full}
    await dead.wait(lease(one, two, worker="dead"), Patience())
    for number in range(MOST_PASSES):
        name = ("one", "two")[number % 2]
        living.release(held[name])
        held[name] = await admitted(living, lease(full[name], worker="living")) if number < 7 else held[name]
    behind = await living.wait(lease(two, worker="living"), Patience())
    assert isinstance(behind, Waiting)
    for _ in range(3):
        await shared_storage.age(TTL / 2)
        await living.renew([held["one"]])
    await living.renew([])
    await asyncio.wait_for(behind.turn, 1)
