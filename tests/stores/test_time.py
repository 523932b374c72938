"""In every store a lease lives for a time to live from when it was last renewed."""

from __future__ import annotations

from litellm_parallel_limits.limits import Admitted, Refused
from litellm_parallel_limits.stores import Store
from tests.samples import lease, limit
from tests.stores.asking import admitted, has_room, holders
from tests.stores.storages import PATIENCE, TTL, Storage


async def test_lease_lives_for_its_time_to_live(storage: Storage, store: Store) -> None:
    """A lease keeps its slot until its time to live has passed."""
    await admitted(store, lease(limit()))
    await storage.age(TTL - 10)
    assert not await has_room(store, limit())


async def test_unrenewed_lease_lapses(storage: Storage, store: Store) -> None:
    """A lease that nobody renews gives its slot back when its time to live has passed."""
    await admitted(store, lease(limit()))
    await storage.age(TTL + 1)
    assert await holders(store) == {}
    assert await has_room(store, limit())


async def test_lapsed_leases_are_not_counted(storage: Storage, store: Store) -> None:
    """Every count told is of leases that live, also where there is room for the lapsed ones."""
    await admitted(store, lease(limit(capacity=9)))
    await storage.age(TTL - 10)
    alive = await admitted(store, lease(limit(capacity=9)))
    await storage.age(11)
    assert await store.acquire(lease(limit(capacity=1))) == Refused(limit(capacity=1), 1)
    assert await holders(store) == {"team": {alive.id}}
    answer = await store.acquire(lease(limit(capacity=9)))
    assert isinstance(answer, Admitted)
    assert answer.in_flight == (2,)


async def test_renewed_lease_lives_on(storage: Storage, store: Store) -> None:
    """A renewed lease lives a full time to live from then."""
    held = await admitted(store, lease(limit("user"), limit("team")))
    await storage.age(TTL - 10)
    await store.renew([held])
    await storage.age(TTL - 10)
    assert await holders(store) == {"user": {held.id}, "team": {held.id}}


async def test_renewal_is_for_the_leases_it_names(storage: Storage, store: Store) -> None:
    """Renewing one lease does nothing for another in the same scope."""
    kept, _ = [await admitted(store, lease(limit(capacity=2))) for _ in range(2)]
    await storage.age(TTL - 10)
    await store.renew([kept])
    await storage.age(11)
    assert await holders(store) == {"team": {kept.id}}


async def test_renewed_lease_counts_once(store: Store) -> None:
    """However often a lease is renewed, it counts once."""
    held = await admitted(store, lease(limit(capacity=9)))
    for _ in range(3):
        await store.renew([held, held])
    assert len((await store.snapshot()).holdings) == 1


async def test_renewal_brings_back_what_was_lost(storage: Storage) -> None:
    """What a worker holds is there again after its next renewal, whatever happened to the storage."""
    held = await admitted(storage.store(), lease(limit("user"), limit("team")))
    await storage.lose()
    assert await holders(storage.store()) == {}
    await storage.store().renew([held])
    assert await holders(storage.store()) == {"user": {held.id}, "team": {held.id}}


async def test_renewal_brings_back_what_lapsed(storage: Storage, store: Store) -> None:
    """A lease renewed too late has its slot again, even where another was admitted meanwhile."""
    late = await admitted(store, lease(limit()))
    await storage.age(TTL + 1)
    other = await admitted(store, lease(limit()))
    await store.renew([late])
    assert await holders(store) == {"team": {late.id, other.id}}
    assert await store.acquire(lease(limit())) == Refused(limit(), 2)


async def test_renewal_of_nothing_changes_nothing(store: Store) -> None:
    """Renewing no lease changes nothing."""
    await store.renew([])
    assert await holders(store) == {}


async def test_snapshot_and_leases_go_by_one_clock(store: Store) -> None:
    """A lease is as old as it is long: the time it starts by is, but for the way, that of a snapshot."""
    begun = store.now_ms()
    assert abs((await store.snapshot()).now_ms - begun) < PATIENCE * 1000
