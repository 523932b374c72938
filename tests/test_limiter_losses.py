"""Who is admitted while the store may know too little, because it has lost leases."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from litellm_parallel_limits.errors import LeasesLostError, StoreUnavailableError
from litellm_parallel_limits.events import Event, StoreFailed
from litellm_parallel_limits.limiter import Limiter, Permit
from litellm_parallel_limits.limits import Answer, Lease, Limit, OnStoreFailure, Refused
from litellm_parallel_limits.stores.memory import MemoryStore
from tests.clock import Clock
from tests.samples import limit, observed

TTL = 30.0


class ForgetfulStore(MemoryStore):
    """A store shared by so many `workers`, which can lose what it keeps.

    After a loss it admits nobody before a renewal. It loses leases once more `during` so many renewals.
    """

    workers = 2
    settled = True

    def __init__(self) -> None:
        super().__init__(ttl=TTL, clock=Clock())
        self.during = 0
        self._is_lost = False

    @property
    def lost(self) -> bool:  # type: ignore[override]  # a store that nobody shares loses nothing
        """Whether it has lost leases that were not renewed since."""
        return self._is_lost

    def lose(self) -> None:
        """Forget everything."""
        self.settled, self._is_lost = False, True
        self.forget()

    def forget(self) -> None:
        """Let every lease lapse."""
        self._places.clear()

    async def acquire(self, lease: Lease) -> Answer:
        """Take slots, but not before a renewal."""
        await asyncio.sleep(0)
        if self._is_lost:
            raise LeasesLostError("lost")
        return await super().acquire(lease)

    async def renew(self, leases: Sequence[Lease]) -> None:
        """Renew leases."""
        await super().renew(leases)
        if self.during:
            self.during -= 1
            self.lose()
            raise LeasesLostError("lost")
        self._is_lost = False


@pytest.fixture
def store() -> ForgetfulStore:
    """Return a store that loses what it keeps when it is told to."""
    return ForgetfulStore()


@pytest.fixture
def events() -> list[Event]:
    """Return what the limiter tells."""
    return []


@pytest.fixture
def limiter(store: ForgetfulStore, events: list[Event]) -> Limiter:
    """Return a worker's limiter."""
    return Limiter(store, ttl=TTL, worker="w1", observer=events.append, clock=Clock())


async def admitted(limiter: Limiter, *limits: Limit) -> Permit:
    """Return the permit of a request that is admitted."""
    permit = await limiter.admit(limits)
    assert isinstance(permit, Permit), permit
    return permit


async def number_admitted(limiter: Limiter, wanted: Limit) -> int:
    """Return how many requests are admitted of ten at once."""
    answers = await asyncio.gather(*(limiter.admit([wanted]) for _ in range(10)))
    return sum(isinstance(answer, Permit) for answer in answers)


async def test_what_is_held_is_told_before_anyone_new(limiter: Limiter, store: ForgetfulStore) -> None:
    """After a loss the next request meets every slot that this worker holds."""
    held = await admitted(limiter, limit())
    store.lose()
    assert isinstance(await limiter.admit([limit()]), Refused)
    assert [holding.lease for holding in (await store.snapshot()).holdings] == [held.lease.id]


async def test_a_loss_is_no_outage(limiter: Limiter, store: ForgetfulStore, events: list[Event]) -> None:
    """A store that lost leases answers: nothing is degraded, and no failure is told."""
    store.lose()
    permit = await admitted(limiter, limit())
    assert not limiter.degraded
    assert events == [permit.admitted]


async def test_a_loss_during_the_renewal_is_made_good(limiter: Limiter, store: ForgetfulStore) -> None:
    """What was lost again while it was renewed is renewed again."""
    held = await admitted(limiter, limit())
    store.lose()
    store.during = 1
    assert isinstance(await limiter.admit([limit()]), Refused)
    assert [holding.lease for holding in (await store.snapshot()).holdings] == [held.lease.id]
    assert not limiter.degraded


async def test_a_store_that_keeps_losing_is_out(
    limiter: Limiter, store: ForgetfulStore, events: list[Event]
) -> None:
    """A store that keeps nothing for as long as a renewal takes is treated as one that is not there."""
    await admitted(limiter, limit())
    store.lose()
    store.during = 2
    assert await limiter.admit([limit()]) == Refused(limit(), 1, "store_unavailable")
    assert any(isinstance(event, StoreFailed) for event in events)


@pytest.mark.parametrize("turns", range(30))
async def test_who_gives_up_while_it_is_told_holds_nothing(
    limiter: Limiter, store: ForgetfulStore, turns: int
) -> None:
    """A request cancelled at any moment of the renewal and the admission after it has its slot, or nobody."""
    store.lose()
    asking = asyncio.create_task(limiter.admit([limit()]))
    for _ in range(turns):
        await asyncio.sleep(0)
    asking.cancel()
    (answer,) = await asyncio.gather(asking, return_exceptions=True)
    for _ in range(30):
        await asyncio.sleep(0)
    assert len((await store.snapshot()).holdings) == isinstance(answer, Permit)


async def test_a_renewal_from_before_a_pause_does_not_count() -> None:
    """A process held up while its heartbeat was under way renews again before it admits anyone."""
    clock, store = Clock(), ForgetfulStore()
    limiter = Limiter(store, ttl=TTL, clock=clock)
    await admitted(limiter, limit())
    beating = asyncio.create_task(limiter.beat())
    await asyncio.sleep(0)
    clock.advance(2 * TTL)
    store.forget()
    await beating
    assert isinstance(await limiter.admit([limit()]), Refused)


@pytest.mark.parametrize(
    ("capacity", "workers", "on_store_failure", "share"),
    [
        (8, 2, "share", 4),
        (8, 3, "share", 2),
        (1, 4, "share", 1),
        (8, 2, "deny", 4),
        (8, 3, "deny", 2),
        (8, 2, "allow", 8),
        (0, 1, "allow", 0),
    ],
)
async def test_share_holds_until_the_store_is_settled(
    limiter: Limiter,
    store: ForgetfulStore,
    *,
    capacity: int,
    workers: int,
    on_store_failure: OnStoreFailure,
    share: int,
) -> None:
    """While leases of others may be missing, a worker holds no more than its share, however many ask."""
    store.workers = workers
    store.lose()
    wanted = limit(capacity=capacity, on_store_failure=on_store_failure)
    if share < capacity and on_store_failure == "deny":
        for _ in range(share):
            await admitted(limiter, wanted)
        with pytest.raises(StoreUnavailableError):
            await limiter.admit([wanted])
    else:
        assert await number_admitted(limiter, wanted) == share


async def test_deny_admits_nobody_of_less_than_one_for_each(limiter: Limiter, store: ForgetfulStore) -> None:
    """A limit smaller than the number of workers that says deny waits until the store is settled."""
    store.lose()
    with pytest.raises(StoreUnavailableError):
        await limiter.admit([limit(on_store_failure="deny")])
    store.settled = True
    await admitted(limiter, limit(on_store_failure="deny"))


async def test_the_store_is_asked_as_well(limiter: Limiter, store: ForgetfulStore) -> None:
    """Within its share a worker admits nobody whom the store's count refuses."""
    other = Limiter(store, ttl=TTL, worker="w2", clock=Clock())
    store.lose()
    for each in (limiter, other):
        assert await number_admitted(each, limit(capacity=3)) == 1
    store.settled = True
    assert await number_admitted(limiter, limit(capacity=3)) == 1


async def test_a_settled_store_is_asked_for_everything(limiter: Limiter, store: ForgetfulStore) -> None:
    """Once every worker has had its time, one of them may have all of a limit again."""
    store.lose()
    await number_admitted(limiter, limit(capacity=8))
    store.settled = True
    assert await number_admitted(limiter, limit(capacity=8)) == 4


async def test_observed_limits_have_no_share(limiter: Limiter, store: ForgetfulStore) -> None:
    """A limit that only counts refuses nobody after a loss either."""
    store.lose()
    assert await number_admitted(limiter, observed()) == 10
