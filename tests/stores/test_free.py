"""In every store an admin can free slots, and who held them goes on uncounted."""

from __future__ import annotations

import pytest

from litellm_parallel_limits.limits import Admitted, Lease, Refused
from litellm_parallel_limits.stores import Store
from tests.samples import lease, limit, observed
from tests.stores.asking import admitted, has_room, holders, renewed
from tests.stores.identities import HOSTILE
from tests.stores.storages import TTL, Storage

USER, TEAM = limit("user", 9), limit("team", 9)


@pytest.fixture
async def held(store: Store) -> list[Lease]:
    """Return three leases, each with a slot in each of two scopes."""
    return [await admitted(store, lease(USER, TEAM)) for _ in range(3)]


async def test_scope_is_freed(store: Store, held: list[Lease]) -> None:
    """Freeing a scope frees every slot in it, and none in another."""
    assert await store.free(scope=TEAM.scope) == 3
    assert await holders(store) == {"user": {lease.id for lease in held}}


async def test_lease_is_freed(store: Store, held: list[Lease]) -> None:
    """Freeing a lease frees its slot in every scope, and nobody else's."""
    first, *others = held
    assert await store.free(lease=first.id) == 2
    left = {lease.id for lease in others}
    assert await holders(store) == {"user": left, "team": left}


async def test_lease_is_freed_in_one_scope(store: Store, held: list[Lease]) -> None:
    """Freeing a lease in a scope frees one slot."""
    first, *others = held
    assert await store.free(scope=TEAM.scope, lease=first.id) == 1
    everybody = {lease.id for lease in held}
    assert await holders(store) == {"user": everybody, "team": {lease.id for lease in others}}


@pytest.mark.parametrize("hostile", HOSTILE)
async def test_scope_is_freed_by_the_name_it_shows(store: Store, hostile: str) -> None:
    """Whatever an identity is made of, its scope is freed by the name that a snapshot has for it."""
    await admitted(store, lease(limit(of=hostile)))
    (holding,) = (await store.snapshot()).holdings
    assert await store.free(scope=holding.scope) == 1
    assert await holders(store) == {}


async def test_nothing_named_is_nothing_freed(store: Store, held: list[Lease]) -> None:
    """With neither a scope nor a lease named every slot stays."""
    assert await store.free() == 0
    assert {len(ids) for ids in (await holders(store)).values()} == {3}


async def test_unknown_names_free_nothing(store: Store, held: list[Lease]) -> None:
    """A scope or a lease that is not there, also not with the other, is no slot."""
    assert await store.free(scope=limit("other").scope) == 0
    assert await store.free(scope=limit("team", of="other").scope) == 0
    assert await store.free(lease="other") == 0
    assert await store.free(scope=limit("other").scope, lease=held[0].id) == 0
    assert await store.free(scope=TEAM.scope, lease="other") == 0
    assert {len(ids) for ids in (await holders(store)).values()} == {3}


async def test_lease_is_freed_by_its_whole_name(store: Store) -> None:
    """A lease whose name begins like another's is another."""
    first = await admitted(store, Lease("abc", (limit(capacity=9),)))
    longer = await admitted(store, Lease("abcd", (limit(capacity=9),)))
    assert await store.free(lease="ab") == 0
    assert await store.free(lease=first.id) == 1
    assert await holders(store) == {"team": {longer.id}}


async def test_slots_are_freed_once(store: Store, held: list[Lease]) -> None:
    """A slot that was freed is not there to be freed again."""
    assert await store.free(lease=held[0].id) == 2
    assert await store.free(lease=held[0].id) == 0
    assert await store.free(scope=TEAM.scope) == 2


async def test_freed_slot_is_not_counted(store: Store) -> None:
    """A slot that was freed is there for the next one, who is compared with the others alone."""
    first, _ = [await admitted(store, lease(limit(capacity=2))) for _ in range(2)]
    assert not await has_room(store, limit(capacity=2))
    await store.free(lease=first.id)
    answer = await store.acquire(lease(limit(capacity=2)))
    assert isinstance(answer, Admitted)
    assert answer.in_flight == (2,)
    assert await store.acquire(lease(limit(capacity=2))) == Refused(limit(capacity=2), 2)


async def test_freed_slot_stays_free(storage: Storage, store: Store, held: list[Lease]) -> None:
    """However often a lease is renewed, a slot that was freed is not counted and does not show."""
    first, *others = held
    await store.free(scope=TEAM.scope, lease=first.id)
    for _ in range(3):
        await storage.age(TTL - 10)
        await store.renew(held)
        assert (await holders(store))["team"] == {lease.id for lease in others}
        assert await store.acquire(lease(limit("team", 2))) == Refused(limit("team", 2), 2)


async def test_what_else_the_lease_has_lives_on(storage: Storage, store: Store, held: list[Lease]) -> None:
    """A lease that lost one slot to an admin keeps the others for as long as it is renewed."""
    await store.free(scope=TEAM.scope)
    await storage.age(TTL - 10)
    await store.renew(held)
    await storage.age(TTL - 10)
    assert await holders(store) == {"user": {lease.id for lease in held}}


async def test_freed_lease_lapses(storage: Storage, store: Store) -> None:
    """That a slot was freed is forgotten with its lease."""
    held = await admitted(store, lease(limit()))
    await store.free(lease=held.id)
    await storage.age(TTL + 1)
    assert await store.free(lease=held.id) == 0
    assert await holders(store) == {}
    assert await has_room(store, limit())


async def test_slot_that_lapsed_is_no_longer_free(storage: Storage, store: Store) -> None:
    """A lease that is renewed too late has all of its slots again, those that were freed as well."""
    late, punctual = [await admitted(store, lease(limit(capacity=9))) for _ in range(2)]
    await store.free(lease=late.id)
    for _ in range(2):
        await storage.age(TTL - 10)
        await store.renew([punctual])
    await renewed(store, late)
    assert await holders(store) == {"team": {late.id, punctual.id}}


async def test_release_of_a_freed_lease_is_harmless(store: Store, held: list[Lease]) -> None:
    """Who ends after its slots were freed takes nobody else's slot with it."""
    first, *others = held
    await store.free(lease=first.id)
    store.release(first)
    left = {lease.id for lease in others}
    assert await holders(store) == {"user": left, "team": left}
    assert await store.acquire(lease(limit("team", 2))) == Refused(limit("team", 2), 2)


async def test_released_lease_is_not_freed(store: Store, held: list[Lease]) -> None:
    """A slot that was given back before is none that an admin frees."""
    store.release(held[0])
    assert await store.free(scope=TEAM.scope) == 2


async def test_lapsed_lease_is_not_freed(storage: Storage, store: Store, held: list[Lease]) -> None:
    """A slot whose time to live has passed is none that an admin frees."""
    await storage.age(TTL + 1)
    assert await store.free(scope=TEAM.scope) == 0


async def test_slot_that_is_apart_is_freed(storage: Storage, store: Store) -> None:
    """Slots that are kept apart are freed with the others, and stay free."""
    held = [await admitted(store, lease(observed())) for _ in range(3)]
    assert await store.free(scope=observed().scope) == 3
    await storage.age(TTL - 10)
    await store.renew(held)
    assert await holders(store) == {}
    assert not (await admitted(store, lease(observed()))).apart


async def test_slots_of_other_workers_are_freed(storage: Storage) -> None:
    """An admin may ask any worker."""
    holder, asked = storage.store("w1"), storage.store("w2")
    held = await admitted(holder, lease(limit()))
    assert await asked.free(lease=held.id) == 1
    await holder.renew([held])
    assert await holders(asked) == {}
    assert await has_room(holder, limit())
