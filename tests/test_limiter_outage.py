"""Who is admitted while the store is out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from litellm_parallel_limits.errors import StoreError, StoreUnavailableError
from litellm_parallel_limits.events import Denied, Event, StoreFailed, StoreRecovered
from litellm_parallel_limits.limiter import CAUTION_SECONDS, Limiter, Permit
from litellm_parallel_limits.limits import Limit, OnStoreFailure, Refused
from tests.clock import Clock
from tests.faulty_store import FaultyStore
from tests.samples import limit, observed

TTL = 30.0


@pytest.fixture
def clock() -> Clock:
    """Return the time."""
    return Clock()


@pytest.fixture
def shared(clock: Clock) -> FaultyStore:
    """Return a store that can be out."""
    return FaultyStore(ttl=TTL, clock=clock)


@pytest.fixture
def events() -> list[Event]:
    """Return what the limiter tells."""
    return []


@pytest.fixture
def limiter(shared: FaultyStore, clock: Clock, events: list[Event]) -> Limiter:
    """Return a worker's limiter."""
    return Limiter(shared, ttl=TTL, worker="w1", observer=events.append, clock=clock)


async def admitted(limiter: Limiter, *limits: Limit) -> Permit:
    """Return the permit of a request that is admitted."""
    permit = await limiter.admit(limits)
    assert isinstance(permit, Permit), permit
    return permit


async def held(limiter: Limiter) -> set[str]:
    """Return the leases that hold a slot."""
    return {holding.lease for holding in (await limiter.snapshot()).holdings}


async def number_admitted(limiter: Limiter, wanted: Limit) -> int:
    """Return how many requests are admitted, one after another, until one is refused."""
    for number in range(50):
        if isinstance(await limiter.admit([wanted]), Refused):
            return number
    return 50


@pytest.mark.parametrize(
    ("capacity", "workers", "share"),
    [(8, 1, 8), (8, 2, 4), (8, 3, 2), (8, 100, 1), (1, 4, 1), (0, 1, 0), (0, 4, 0)],
)
async def test_share_is_the_limit_divided_by_the_workers(
    limiter: Limiter, shared: FaultyStore, capacity: int, workers: int, share: int
) -> None:
    """Each worker admits its part of the limit, at least 1, and nothing where the limit is 0."""
    shared.workers, shared.out = workers, True
    assert await number_admitted(limiter, limit(capacity=capacity)) == share


async def test_share_counts_what_this_worker_held_before(limiter: Limiter, shared: FaultyStore) -> None:
    """What this worker admitted before the outage is part of its share."""
    await admitted(limiter, limit(capacity=4))
    shared.workers, shared.out = 2, True
    assert await number_admitted(limiter, limit(capacity=4)) == 1


async def test_share_is_freed_by_releases(limiter: Limiter, shared: FaultyStore) -> None:
    """A request that ends gives its slot to the next, with the store or without."""
    shared.out = True
    permit = await admitted(limiter, limit())
    permit.release()
    await admitted(limiter, limit())


async def test_share_counts_by_scope(limiter: Limiter, shared: FaultyStore) -> None:
    """Each scope has a share of its own."""
    shared.out = True
    await admitted(limiter, limit(of="a"))
    await admitted(limiter, limit(of="b"))


async def test_refusal_tells_the_share(limiter: Limiter, shared: FaultyStore, events: list[Event]) -> None:
    """A request refused in an outage is told this worker's share, and why."""
    shared.workers, shared.out = 2, True
    await admitted(limiter, limit(capacity=2))
    refused = Refused(limit(capacity=1), 1, "store_unavailable")
    assert await limiter.admit([limit("user"), limit(capacity=2)]) == refused
    assert events[-1] == refused


async def test_refusal_takes_nothing(limiter: Limiter, shared: FaultyStore) -> None:
    """A request refused by one share holds no part of the others."""
    shared.out = True
    await limiter.admit([limit("user"), limit(capacity=0)])
    await admitted(limiter, limit("user"))


async def test_allow_admits_everything(limiter: Limiter, shared: FaultyStore) -> None:
    """A limit that says allow holds nobody up while it cannot be checked."""
    shared.out = True
    assert await number_admitted(limiter, limit(on_store_failure="allow")) == 50


@pytest.mark.parametrize("on_store_failure", ["share", "allow"])
async def test_limit_of_zero_stays_blocked(
    limiter: Limiter, shared: FaultyStore, on_store_failure: OnStoreFailure
) -> None:
    """Who is blocked stays blocked: for that no store is needed."""
    shared.out = True
    assert await number_admitted(limiter, limit(capacity=0, on_store_failure=on_store_failure)) == 0


async def test_deny_admits_nothing(limiter: Limiter, shared: FaultyStore, events: list[Event]) -> None:
    """A limit that says deny is an error of its own, which names it; nothing is held, and it is told."""
    shared.out = True
    denying = limit(on_store_failure="deny")
    with pytest.raises(StoreUnavailableError, match="'team'") as error:
        await limiter.admit([limit("user"), denying])
    assert error.value.limit == "team"
    assert await held(limiter) == set()
    assert events.count(Denied(denying)) == 1


@pytest.mark.parametrize("capacity", [0, 1])
async def test_observed_limit_never_refuses(limiter: Limiter, shared: FaultyStore, capacity: int) -> None:
    """A limit that only counts holds nobody up in an outage either, whatever it says of outages."""
    shared.out = True
    watched = Limit(limit("watched").scope, capacity, "observe", "deny")
    assert await number_admitted(limiter, watched) == 50


async def test_outage_is_known(limiter: Limiter, shared: FaultyStore) -> None:
    """The limiter is degraded from the first failure until the store was told what is held."""
    states = [limiter.degraded]
    shared.out = True
    await admitted(limiter, limit(capacity=9))
    states.append(limiter.degraded)
    shared.out = False
    await limiter.beat()
    states.append(limiter.degraded)
    assert states == [False, True, False]


async def test_outage_is_told_with_its_cause(
    limiter: Limiter, shared: FaultyStore, events: list[Event]
) -> None:
    """Each failure is told, with what was asked and the error."""
    shared.out = True
    await admitted(limiter, limit())
    await limiter.beat()
    failures = [event for event in events if isinstance(event, StoreFailed)]
    assert [failure.operation for failure in failures] == ["acquire", "renew"]
    assert all(isinstance(failure.error, StoreError) for failure in failures)


async def test_recovery_is_told_once(limiter: Limiter, shared: FaultyStore, events: list[Event]) -> None:
    """The first answer after an outage is told, and no other."""
    shared.out = True
    await admitted(limiter, limit(capacity=9))
    shared.out = False
    for _ in range(3):
        await limiter.beat()
        await admitted(limiter, limit(capacity=9))
    assert events.count(StoreRecovered()) == 1


async def test_beat_in_an_outage_is_no_error(limiter: Limiter, shared: FaultyStore) -> None:
    """A heartbeat that fails leaves everything held, to be renewed by the next."""
    permit = await admitted(limiter, limit())
    shared.out = True
    await limiter.beat()
    shared.out = False
    await limiter.beat()
    assert await held(limiter) == {permit.lease.id}


async def test_beat_tells_the_store_of_those_admitted_without_it(
    limiter: Limiter, shared: FaultyStore, clock: Clock
) -> None:
    """What was admitted in an outage counts in the store from the next heartbeat on."""
    shared.out = True
    permit = await admitted(limiter, limit())
    shared.out = False
    await limiter.beat()
    assert await held(limiter) == {permit.lease.id}
    clock.advance(CAUTION_SECONDS)
    assert await limiter.admit([limit()]) == Refused(limit(), 1)


async def test_recovery_comes_by_itself(limiter: Limiter, shared: FaultyStore) -> None:
    """The limiter looks whether the store is back without being asked for anything, and tells it first."""
    shared.out = True
    permit = await admitted(limiter, limit())
    shared.out = False
    await turns_until(lambda: not limiter.degraded)
    assert shared.renewed[-1] == {permit.lease.id}
    assert await limiter.admit([limit()]) == Refused(limit(), 1, "store_unavailable")


async def test_nobody_waits_for_a_store_that_is_out(limiter: Limiter, shared: FaultyStore) -> None:
    """While it is tried whether the store is back, requests are decided at once and ask it nothing."""
    shared.out = True
    await admitted(limiter, limit(capacity=9))
    shared.silent = True
    await turns_until(lambda: shared.is_waited_for)
    asked = list(shared.asked)
    for _ in range(3):
        await admitted(limiter, limit(capacity=9))
    assert shared.asked == asked
    assert limiter.degraded


async def test_nobody_waits_longer_than_the_time_out(shared: FaultyStore, clock: Clock) -> None:
    """A request that must wait until what is held was renewed is decided without the store in the end."""
    limiter = Limiter(shared, ttl=TTL, timeout=0.01, clock=clock)
    await admitted(limiter, limit(capacity=9))
    clock.advance(TTL)  # this process was held up
    shared.silent = True
    await admitted(limiter, limit(capacity=9))
    assert limiter.degraded


async def test_share_holds_on_for_a_moment(limiter: Limiter, shared: FaultyStore, clock: Clock) -> None:
    """After an outage others may not have told yet what they admitted: nobody takes more than a share."""
    shared.workers, shared.out = 2, True
    await admitted(limiter, limit(capacity=4))
    shared.out = False
    await limiter.beat()
    assert await number_admitted(limiter, limit(capacity=4)) == 1
    clock.advance(CAUTION_SECONDS)
    assert await number_admitted(limiter, limit(capacity=4)) == 2


async def test_store_that_comes_and_goes_is_given_time(
    limiter: Limiter, shared: FaultyStore, clock: Clock
) -> None:
    """A store that fails again soon after it was back is not looked at at once; one that was steady is."""
    looked = []
    for steady in (1, CAUTION_SECONDS, 60):
        shared.out = True
        await admitted(limiter, limit(capacity=9))
        shared.out = False
        await turns(20)
        looked.append(not limiter.degraded)
        await limiter.beat()
        clock.advance(steady)
    assert looked == [True, False, False]
    shared.out = True
    await admitted(limiter, limit(capacity=99))
    shared.out = False
    await turns_until(lambda: not limiter.degraded)


async def test_lease_granted_without_the_store_has_a_name_that_it_never_heard(
    limiter: Limiter, shared: FaultyStore
) -> None:
    """The release of what the store was asked for, which may come late, does not end what is held."""
    shared.out = True
    permit = await admitted(limiter, limit())
    assert shared.asked
    assert permit.lease.id not in shared.asked


async def test_snapshot_in_an_outage_is_of_this_worker(limiter: Limiter, shared: FaultyStore) -> None:
    """While the store is out the holders of this worker are shown."""
    before = await admitted(limiter, limit("user"), limit("team"))
    shared.out = True
    since = await admitted(limiter, limit("other"))
    snapshot = await limiter.snapshot()
    assert [(holding.scope.limit, holding.lease) for holding in snapshot.holdings] == [
        ("user", before.lease.id),
        ("team", before.lease.id),
        ("other", since.lease.id),
    ]


async def test_what_enforcement_would_refuse_is_apart_in_an_outage(
    limiter: Limiter, shared: FaultyStore
) -> None:
    """A request over its share of an observed limit is apart: the others go on being counted right."""
    shared.out = True
    permits = [await admitted(limiter, observed()) for _ in range(3)]
    assert [permit.lease.apart for permit in permits] == [False, True, True]


async def test_snapshot_tells_whether_it_is_of_all_workers(limiter: Limiter, shared: FaultyStore) -> None:
    """A snapshot is whole, unless the store could not be asked for it."""
    wholes = []
    for shared.out in (False, True):
        wholes.append((await limiter.snapshot()).is_whole)
    assert wholes == [True, False]


async def test_snapshot_of_a_store_that_is_back_is_whole(limiter: Limiter, shared: FaultyStore) -> None:
    """A worker that nobody asks for anything finds out by itself that the store is back."""
    shared.out = True
    await limiter.snapshot()
    assert limiter.degraded
    shared.out = False
    await turns_until(lambda: not limiter.degraded)
    assert (await limiter.snapshot()).is_whole


async def turns(number: int) -> None:
    """Let others go on."""
    for _ in range(number):
        await asyncio.sleep(0)


async def turns_until(holds: Callable[[], bool]) -> None:
    """Let others go on until something holds."""
    while not holds():  # noqa: ASYNC110 (turns of the loop, no time)
        await asyncio.sleep(0)
