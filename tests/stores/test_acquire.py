"""Every store admits a lease to all of its limits or to none."""

from __future__ import annotations

import asyncio

import pytest

from litellm_parallel_limits.limits import Admitted, Refused
from litellm_parallel_limits.stores import Store
from tests.samples import lease, limit
from tests.stores.asking import admitted, has_room, holders
from tests.stores.storages import Storage


async def test_admitted_lease_has_a_slot_in_each_limit(store: Store) -> None:
    """An admitted lease holds one slot in each of its limits."""
    granted = await admitted(store, lease(limit("user"), limit("team")))
    assert await holders(store) == {"user": {granted.id}, "team": {granted.id}}


async def test_lease_without_limits_is_admitted(store: Store) -> None:
    """A lease without limits is admitted and holds nothing."""
    await admitted(store, lease())
    assert await holders(store) == {}


@pytest.mark.parametrize("place", [0, 1, 2])
async def test_refused_lease_takes_nothing(store: Store, place: int) -> None:
    """A lease refused by one limit holds no slot in the others, wherever the full one stands."""
    full = limit("full")
    await admitted(store, lease(full))
    wanted = [limit("user"), limit("team")]
    wanted.insert(place, full)
    assert isinstance(await store.acquire(lease(*wanted)), Refused)
    assert set(await holders(store)) == {"full"}


async def test_refusal_names_the_limit_and_its_count(store: Store) -> None:
    """A refusal tells which limit is full, and how many leases are in it."""
    full = limit("full", 2)
    for _ in range(2):
        await admitted(store, lease(full))
    assert await store.acquire(lease(limit("user"), full)) == Refused(full, 2)


async def test_refusal_names_the_first_full_limit(store: Store) -> None:
    """Where several limits are full the refusal names the first."""
    first, second = limit("first"), limit("second")
    await admitted(store, lease(first, second))
    assert await store.acquire(lease(second, first)) == Refused(second, 1)


async def test_capacity_zero_blocks(store: Store) -> None:
    """A limit of 0 refuses everything, with nothing in flight."""
    blocked = limit(capacity=0)
    assert await store.acquire(lease(blocked)) == Refused(blocked, 0)


async def test_admission_tells_how_many_are_in_flight(store: Store) -> None:
    """An admission counts, for each limit in order, the leases with this one."""
    user, team = limit("user", 5), limit("team", 5)
    await admitted(store, lease(team))
    answer = await store.acquire(lease(user, team))
    assert isinstance(answer, Admitted)
    assert answer.in_flight == (1, 2)


async def test_requests_at_once_never_exceed_the_limit(store: Store) -> None:
    """Of many requests at the same time exactly as many are admitted as there are slots."""
    answers = await asyncio.gather(*(store.acquire(lease(limit(capacity=3))) for _ in range(40)))
    assert sum(isinstance(answer, Admitted) for answer in answers) == 3
    assert {answer.in_flight for answer in answers if isinstance(answer, Refused)} == {3}


async def test_workers_count_together(storage: Storage) -> None:
    """One count holds over all workers."""
    await admitted(storage.store("w1"), lease(limit(), worker="w1"))
    assert not await has_room(storage.store("w2"), limit())


async def test_lowering_a_limit_evicts_nobody(store: Store) -> None:
    """A limit below what is in flight takes no slot away; it refuses until enough have ended."""
    held = [await admitted(store, lease(limit(capacity=3))) for _ in range(3)]
    assert await store.acquire(lease(limit(capacity=1))) == Refused(limit(capacity=1), 3)
    assert await holders(store) == {"team": {held.id for held in held}}
    store.release(held[0])
    store.release(held[1])
    assert not await has_room(store, limit(capacity=1))
    store.release(held[2])
    assert await has_room(store, limit(capacity=1))


async def test_two_numbers_of_a_scope_share_its_count(store: Store) -> None:
    """Requests of one scope with different numbers are each compared with their own."""
    low, high = limit(capacity=2), limit(capacity=5)
    for _ in range(2):
        await admitted(store, lease(high))
    assert not await has_room(store, low)
    assert await has_room(store, high)


async def test_a_huge_number_is_no_limit(store: Store) -> None:
    """The greatest number there is compares like any other."""
    assert await has_room(store, limit(capacity=2**53 - 1))
