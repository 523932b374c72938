"""In every store an observed limit counts what enforcement would admit, and the rest apart."""

from __future__ import annotations

import pytest

from litellm_parallel_limits.limits import Admitted, Refused
from litellm_parallel_limits.stores import Store
from tests.samples import lease, limit, observed
from tests.stores.asking import admitted, holders
from tests.stores.storages import TTL, Storage


async def test_observed_limit_never_refuses(store: Store) -> None:
    """A request over an observed limit is admitted, and marked as one that enforcement would refuse."""
    assert [(await admitted(store, lease(observed()))).apart for _ in range(3)] == [False, True, True]


async def test_observed_limit_of_zero_never_refuses(store: Store) -> None:
    """An observed limit of 0 admits everything, apart."""
    assert (await admitted(store, lease(observed(capacity=0)))).apart


async def test_lease_apart_takes_no_room(store: Store) -> None:
    """A lease kept apart takes no room of the limit: when the others end, the next is not apart."""
    first = await admitted(store, lease(observed()))
    assert (await admitted(store, lease(observed()))).apart
    store.release(first)
    assert not (await admitted(store, lease(observed()))).apart


async def test_lease_apart_is_so_in_every_observed_limit(store: Store) -> None:
    """What one observed limit would have refused takes no room in another observed one either."""
    full, free = observed("full", 0), observed("free", 1)
    assert (await admitted(store, lease(free, full))).apart
    assert not (await admitted(store, lease(free))).apart


async def test_lease_apart_counts_in_enforced_limits(store: Store) -> None:
    """A lease that is apart counts in its enforced limits like any other."""
    assert (await admitted(store, lease(observed(capacity=0), limit()))).apart
    assert await store.acquire(lease(limit())) == Refused(limit(), 1)


@pytest.mark.parametrize("place", [0, 1])
async def test_observed_limit_hides_no_refusal(store: Store, place: int) -> None:
    """Where an observed and an enforced limit are full, the enforced one refuses and is named."""
    full = limit()
    await admitted(store, lease(full))
    limits = [full]
    limits.insert(place, observed(capacity=0))
    assert await store.acquire(lease(*limits)) == Refused(full, 1)
    assert set(await holders(store)) == {"team"}


async def test_refused_request_is_not_observed(store: Store) -> None:
    """A request that an enforced limit refuses is not counted by an observed one."""
    await store.acquire(lease(observed(), limit(capacity=0)))
    assert not (await admitted(store, lease(observed()))).apart


async def test_leases_apart_show_in_the_totals(store: Store) -> None:
    """A snapshot shows leases that are apart beside the others."""
    held = [await admitted(store, lease(observed())) for _ in range(3)]
    assert await holders(store) == {"watched": {held.id for held in held}}


async def test_observed_count_is_the_one_that_enforcement_would_see(store: Store) -> None:
    """The number in flight in an observed limit leaves out what is apart."""
    for _ in range(3):
        answer = await store.acquire(lease(observed()))
    assert isinstance(answer, Admitted)
    assert answer.in_flight == (2,)


async def test_renewed_lease_stays_apart(storage: Storage, store: Store) -> None:
    """A lease that is apart lives on apart, and takes no room when it is renewed."""
    first = await admitted(store, lease(observed()))
    apart = await admitted(store, lease(observed()))
    store.release(first)
    await storage.age(TTL - 10)
    await store.renew([apart])
    await storage.age(TTL - 10)
    assert await holders(store) == {"watched": {apart.id}}
    assert not (await admitted(store, lease(observed()))).apart


async def test_lease_apart_is_released(store: Store) -> None:
    """A lease that is apart ends like any other."""
    held = [await admitted(store, lease(observed(), limit(capacity=9))) for _ in range(2)]
    for one in held:
        store.release(one)
    assert await holders(store) == {}


async def test_enforcement_goes_on_from_what_was_observed(store: Store) -> None:
    """Where a limit goes from observed to enforced, what it counted before is counted on."""
    await admitted(store, lease(limit(mode="observe")))
    assert await store.acquire(lease(limit())) == Refused(limit(), 1)
