"""A store of several workers that has lost leases admits nobody before they are back."""

from __future__ import annotations

import pytest

from litellm_parallel_limits.errors import LeasesLostError
from litellm_parallel_limits.limits import Refused
from litellm_parallel_limits.stores.exchange import settling_seconds
from litellm_parallel_limits.stores.shared import SharedStore
from tests.samples import lease, limit
from tests.stores.asking import admitted, has_room, holders, renewed
from tests.stores.storages import TTL, SharedStorage

SETTLING = settling_seconds(TTL)


@pytest.fixture
def stores(shared_storage: SharedStorage) -> list[SharedStore]:
    """Return the stores of three workers."""
    return [shared_storage.store(worker) for worker in ("w1", "w2", "w3")]


@pytest.fixture
async def met(stores: list[SharedStore]) -> list[SharedStore]:
    """Return the stores of three workers that have called."""
    for store in stores:
        await store.renew([])
    return stores


async def is_told(store: SharedStore) -> bool:
    """Whether a worker is told of a loss when it asks for a slot."""
    try:
        assert await has_room(store, limit(capacity=99))
    except LeasesLostError:
        return True
    await store.snapshot()  # what was tried is given back
    return False


def is_settled(store: SharedStore) -> bool:
    """Whether a worker takes the store for settled by now."""
    return store.settled


def is_lost(store: SharedStore) -> bool:
    """Whether a worker knows by now that it must renew what it holds."""
    return store.lost


async def test_worker_knows_whether_to_renew(
    shared_storage: SharedStorage, stores: list[SharedStore]
) -> None:
    """A worker knows that it must renew what it holds before it has called, and from a loss until it has."""
    store, other = stores[:2]
    assert is_lost(store)
    await store.renew([])
    assert not is_lost(store)
    await shared_storage.lose()
    await renewed(other)
    assert not is_lost(store)
    await store.snapshot()
    assert is_lost(store)
    await store.renew([])
    assert not is_lost(store)


async def test_first_start_is_no_loss(stores: list[SharedStore]) -> None:
    """Workers that call for the first time are admitted, and need not wait for one another."""
    for store in stores:
        assert is_settled(store)
        assert not await is_told(store)
        assert is_settled(store)


async def test_every_worker_is_told_of_a_loss(shared_storage: SharedStorage, met: list[SharedStore]) -> None:
    """After a loss no worker is admitted, each until it has renewed what it holds, and then for good."""
    await shared_storage.lose()
    for store in met:
        assert [await is_told(store), await is_told(store)] == [True, True]
        await store.renew([])
        assert not await is_told(store)
    assert [await is_told(store) for store in met] == [False] * 3


async def test_workers_are_told_of_every_loss(shared_storage: SharedStorage, met: list[SharedStore]) -> None:
    """One loss after another is told."""
    for _ in range(3):
        await shared_storage.lose()
        assert [await is_told(store) for store in met] == [True] * 3
        for store in met:
            await store.renew([])


async def test_renewal_tells_of_a_loss(shared_storage: SharedStorage, met: list[SharedStore]) -> None:
    """Whose leases may have been lost while they were renewed is told, and renews them once more."""
    held = await admitted(met[0], lease(limit()))
    await shared_storage.lose()
    with pytest.raises(LeasesLostError):
        await met[0].renew([held])
    await met[0].renew([held])
    assert await met[0].acquire(lease(limit())) == Refused(limit(), 1)


async def test_call_from_before_a_loss_brings_nothing_back(
    shared_storage: SharedStorage, met: list[SharedStore]
) -> None:
    """A renewal made before its worker knew of a loss does nothing: what it names may be released by now."""
    held = await admitted(met[0], lease(limit()))
    await shared_storage.lose()
    await renewed(met[1])
    with pytest.raises(LeasesLostError):
        await met[0].renew([held])
    assert await holders(met[1]) == {}
    await met[0].renew([held])
    assert await holders(met[1]) == {"team": {held.id}}


async def test_release_finds_a_loss(shared_storage: SharedStorage, met: list[SharedStore]) -> None:
    """Who hears of a loss when it gives something back does not ask for more before it has renewed."""
    held, given_back = [await admitted(met[0], lease(limit(capacity=2))) for _ in range(2)]
    await shared_storage.lose()
    met[0].release(given_back)
    await met[0].snapshot()
    assert await is_told(met[0])
    await met[0].renew([held])
    assert await holders(met[0]) == {"team": {held.id}}


async def test_leases_of_all_workers_come_back(shared_storage: SharedStorage, met: list[SharedStore]) -> None:
    """When every worker has renewed what it holds the count is what it was."""
    held = [await admitted(store, lease(limit(capacity=3))) for store in met]
    await shared_storage.lose()
    for store, one in zip(met, held, strict=True):
        await renewed(store, one)
    assert await holders(met[0]) == {"team": {lease.id for lease in held}}
    assert await met[0].acquire(lease(limit(capacity=3))) == Refused(limit(capacity=3), 3)


async def test_store_is_settled_half_a_time_to_live_after_a_loss(
    shared_storage: SharedStorage, met: list[SharedStore]
) -> None:
    """From a loss on every worker has the time of one renewal and a half; then the store is settled."""
    await shared_storage.lose()
    await renewed(met[0])
    assert not is_settled(met[0])
    await shared_storage.age(SETTLING - 3)
    assert not is_settled(met[0])
    await shared_storage.age(4)
    assert is_settled(met[0])
    await met[0].renew([])
    assert is_settled(met[0])


async def test_store_is_settled_for_all_at_once(
    shared_storage: SharedStorage, met: list[SharedStore]
) -> None:
    """Who hears of a loss late waits no longer than who heard of it first."""
    await shared_storage.lose()
    await renewed(met[0])
    await shared_storage.age(SETTLING - 3)
    await renewed(met[1])
    assert not is_settled(met[1])
    await shared_storage.age(4)
    assert is_settled(met[1])
    await renewed(met[2])
    assert is_settled(met[2])


async def test_new_worker_learns_of_a_loss(shared_storage: SharedStorage, met: list[SharedStore]) -> None:
    """Who calls for the first time soon after a loss is as careful as the others."""
    await shared_storage.lose()
    await renewed(met[0])
    new = shared_storage.store("new")
    assert await is_told(new)
    await new.renew([])
    assert not await is_told(new)
    assert not is_settled(new)


async def test_new_worker_need_not_know_of_an_old_loss(
    shared_storage: SharedStorage, met: list[SharedStore]
) -> None:
    """Who calls for the first time when the store is settled again is admitted at once."""
    await shared_storage.lose()
    await renewed(met[0])
    await shared_storage.age(SETTLING + 1)
    new = shared_storage.store("new")
    assert not await is_told(new)
    assert is_settled(new)


async def test_loss_is_found_though_a_new_worker_came_first(
    shared_storage: SharedStorage, met: list[SharedStore]
) -> None:
    """Who knows no better takes an empty store for a new one, until somebody calls who knew it before."""
    await shared_storage.lose()
    new = shared_storage.store("new")
    assert not await is_told(new)
    assert is_settled(new)
    assert await is_told(met[0])
    assert await is_told(new)
    for store in (met[0], new):
        await store.renew([])
        assert not await is_told(store)
        assert not is_settled(store)


async def test_older_state_is_a_loss(shared_storage: SharedStorage, met: list[SharedStore]) -> None:
    """A store that goes on from an older state, as a replica that was behind does, has lost leases."""
    before = await admitted(met[0], lease(limit(capacity=9)))
    state = await shared_storage.save()
    after = await admitted(met[0], lease(limit(capacity=9)))
    await shared_storage.restore(state)
    assert await is_told(met[0])
    await met[0].renew([before, after])
    assert [await is_told(store) for store in met] == [False, True, True]
    assert await holders(met[0]) == {"team": {before.id, after.id}}
    assert not is_settled(met[0])


async def test_state_from_before_a_worker_is_a_loss(
    shared_storage: SharedStorage, met: list[SharedStore]
) -> None:
    """A store that goes on from a state in which it did not know a worker has lost what that one holds."""
    state = await shared_storage.save()
    new = shared_storage.store("new")
    held = await admitted(new, lease(limit()))
    await shared_storage.restore(state)
    assert await is_told(new)
    await new.renew([held])
    assert await is_told(met[0])
    assert await holders(met[0]) == {"team": {held.id}}


async def test_epoch_that_is_over_does_not_come_back(
    shared_storage: SharedStorage, met: list[SharedStore]
) -> None:
    """A store that goes on from a state before its last loss has lost leases once more."""
    state = await shared_storage.save()
    await shared_storage.lose()
    for store in met:
        await renewed(store)
    await shared_storage.restore(state)
    for store in met:
        assert await is_told(store)
        await store.renew([])
    assert [await is_told(store) for store in met] == [False] * 3
    assert not is_settled(met[0])


async def test_state_that_is_up_to_date_is_no_loss(
    shared_storage: SharedStorage, met: list[SharedStore]
) -> None:
    """Where a replica that has everything takes over, nobody is told anything."""
    held = await admitted(met[0], lease(limit(capacity=9)))
    await shared_storage.restore(await shared_storage.save())
    assert [await is_told(store) for store in met] == [False] * 3
    assert await holders(met[0]) == {"team": {held.id}}


async def test_stall_of_everybody_is_a_loss(shared_storage: SharedStorage, met: list[SharedStore]) -> None:
    """Where nobody called for a time to live, whoever held something is told that all has lapsed."""
    held = await admitted(met[0], lease(limit()))
    await shared_storage.age(TTL + 1)
    with pytest.raises(LeasesLostError):
        await met[0].renew([held])
    await met[0].renew([held])
    assert not is_settled(met[0])
    assert await is_told(met[1])


async def test_stall_of_one_worker_is_no_loss(shared_storage: SharedStorage, met: list[SharedStore]) -> None:
    """Whose leases lapsed while others went on renews them, and nobody else has to."""
    held = await admitted(met[0], lease(limit(capacity=9)))
    for _ in range(2):
        await shared_storage.age(TTL - 10)
        await met[1].renew([])
    await met[0].renew([held])
    assert [await is_told(store) for store in met] == [False] * 3
    assert is_settled(met[0])


async def test_idle_worker_has_lost_nothing(shared_storage: SharedStorage, met: list[SharedStore]) -> None:
    """Who comes back after a time to live in which nobody held anything is admitted at once."""
    met[0].release(await admitted(met[0], lease(limit())))
    await met[0].snapshot()
    await shared_storage.age(TTL + 1)
    assert [await is_told(store) for store in met] == [False] * 3
    assert is_settled(met[0])


async def test_loss_while_a_worker_was_idle_is_told(
    shared_storage: SharedStorage, met: list[SharedStore]
) -> None:
    """Who comes back after a time to live is told of a loss as well: others may still miss their leases."""
    await shared_storage.age(TTL + 1)
    await shared_storage.lose()
    assert await is_told(met[0])


async def test_number_of_workers_outlives_a_loss(
    shared_storage: SharedStorage, met: list[SharedStore]
) -> None:
    """Until the store is settled as many workers count as were known before, for some have not called yet."""
    await met[0].renew([])
    await shared_storage.lose()
    await renewed(met[0])
    assert met[0].workers == 3
    await shared_storage.age(SETTLING + 1)
    await met[0].renew([])
    assert met[0].workers == 1


async def test_nothing_is_admitted_by_the_call_that_finds_a_loss(
    shared_storage: SharedStorage, met: list[SharedStore]
) -> None:
    """Who is told of a loss holds nothing of what it asked for."""
    await shared_storage.lose()
    with pytest.raises(LeasesLostError):
        await met[0].acquire(lease(limit()))
    await met[0].renew([])
    assert await holders(met[0]) == {}
    assert await has_room(met[0], limit())
