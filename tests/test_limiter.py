"""Who is admitted, who is told of it, and how long a lease lives."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import pytest

from litellm_parallel_limits.errors import StoreError
from litellm_parallel_limits.events import Event, Released
from litellm_parallel_limits.limiter import Limiter, Permit
from litellm_parallel_limits.limits import Admitted, Answer, Lease, Limit, Refused
from litellm_parallel_limits.stores.memory import MemoryStore
from tests.clock import Clock
from tests.samples import limit, observed

TTL = 30.0


@pytest.fixture
def clock() -> Clock:
    """Return the time."""
    return Clock()


@pytest.fixture
def events() -> list[Event]:
    """Return what the limiter tells."""
    return []


@pytest.fixture
def limiter(clock: Clock, events: list[Event]) -> Limiter:
    """Return a worker's limiter."""
    return Limiter(
        MemoryStore(ttl=TTL, clock=clock), ttl=TTL, worker="w1", observer=events.append, clock=clock
    )


async def admitted(limiter: Limiter, *limits: Limit) -> Permit:
    """Return the permit of a request that is admitted."""
    permit = await limiter.admit(limits, model="gpt-4")
    assert isinstance(permit, Permit), permit
    return permit


async def held(limiter: Limiter) -> set[str]:
    """Return the leases that hold a slot."""
    return {holding.lease for holding in (await limiter.snapshot()).holdings}


async def test_admitted_request_has_a_permit(limiter: Limiter, events: list[Event]) -> None:
    """An admitted request holds its slots until it releases its permit."""
    permit = await admitted(limiter, limit("user"), limit("team"))
    assert await held(limiter) == {permit.lease.id}
    assert permit.admitted.in_flight == (1, 1)
    permit.release()
    assert await held(limiter) == set()


async def test_refused_request_has_none(limiter: Limiter) -> None:
    """A refused request is told which limit is full, and holds nothing."""
    permit = await admitted(limiter, limit())
    assert await limiter.admit([limit("user"), limit()]) == Refused(limit(), 1)
    assert await held(limiter) == {permit.lease.id}


async def test_lease_tells_who_holds_it(limiter: Limiter, clock: Clock) -> None:
    """A lease has a name of its own, its worker, its model, and its start by the store's clock."""
    first, second = await admitted(limiter, limit(capacity=2)), await admitted(limiter, limit(capacity=2))
    assert first.lease.id != second.lease.id
    assert (first.lease.worker, first.lease.model) == ("w1", "gpt-4")
    assert first.lease.started_ms == clock.now * 1000


async def test_second_release_does_nothing(limiter: Limiter, events: list[Event]) -> None:
    """A permit released twice frees one slot, and is told of once."""
    first, second = await admitted(limiter, limit(capacity=2)), await admitted(limiter, limit(capacity=2))
    first.release()
    first.release()
    assert await held(limiter) == {second.lease.id}
    assert sum(isinstance(event, Released) for event in events) == 1


async def test_events_tell_the_story(limiter: Limiter, events: list[Event], clock: Clock) -> None:
    """Every admission, refusal and release is told, a release with how long the lease was held."""
    permit = await admitted(limiter, limit())
    await limiter.admit([limit()])
    clock.advance(2.5)
    permit.release()
    assert events == [permit.admitted, Refused(limit(), 1), Released(permit.lease, 2.5)]


async def test_observed_limit_marks_the_permit(limiter: Limiter) -> None:
    """A request over an observed limit has its permit, and the permit knows that it is apart."""
    assert not (await admitted(limiter, observed())).lease.apart
    assert (await admitted(limiter, observed())).lease.apart


async def test_beat_keeps_what_is_held(limiter: Limiter, clock: Clock) -> None:
    """A lease lives as long as its request, however long that is."""
    permit = await admitted(limiter, limit())
    for _ in range(5):
        clock.advance(TTL / 2)
        await limiter.beat()
    assert await held(limiter) == {permit.lease.id}


async def test_beat_forgets_what_was_released(limiter: Limiter, clock: Clock) -> None:
    """A lease that was released is not renewed."""
    kept, given_back = await admitted(limiter, limit("user")), await admitted(limiter, limit("team"))
    given_back.release()
    await limiter.beat()
    assert await held(limiter) == {kept.lease.id}


async def test_beat_brings_back_what_the_store_lost(limiter: Limiter, clock: Clock) -> None:
    """What this worker holds is in the store again after a heartbeat, whatever happened to it."""
    permit = await admitted(limiter, limit())
    limiter.store = MemoryStore(ttl=TTL, clock=clock)
    await limiter.beat()
    assert await held(limiter) == {permit.lease.id}


async def test_overdue_heartbeat_comes_before_the_next_admission(limiter: Limiter, clock: Clock) -> None:
    """A process that was held up admits nobody into the room that its own requests still use."""
    permit = await admitted(limiter, limit())
    clock.advance(2 * TTL)
    assert await limiter.admit([limit()]) == Refused(limit(), 1)
    assert await held(limiter) == {permit.lease.id}


class Heart(MemoryStore):
    """A store that counts the renewals asked of it."""

    beats = 0

    async def renew(self, leases: Sequence[Lease]) -> None:
        """Renew leases."""
        self.beats += 1
        await super().renew(leases)


async def beaten(heart: Heart, times: int) -> None:
    """Return after so many more heartbeats."""
    until = heart.beats + times
    while heart.beats < until:  # noqa: ASYNC110 (turns of the loop, no time)
        await asyncio.sleep(0)


@pytest.fixture
def heart() -> Heart:
    """Return a store that never lets a lease lapse."""
    return Heart(ttl=TTL)


@pytest.fixture
def quick(heart: Heart) -> Limiter:
    """Return a limiter whose heart beats every few milliseconds."""
    return Limiter(heart, ttl=0.01)


async def test_heart_beats_while_something_is_held(quick: Limiter, heart: Heart) -> None:
    """The heartbeat goes on by itself as long as a lease is held."""
    permit = await admitted(quick, limit())
    await beaten(heart, 3)
    permit.release()


async def test_heart_starts_again(quick: Limiter, heart: Heart) -> None:
    """The heartbeat goes on after every time that nothing was held."""
    for _ in range(3):
        permit = await admitted(quick, limit())
        await beaten(heart, 1)
        permit.release()
        await others_ended()


async def test_heart_stops_with_the_last_lease(quick: Limiter) -> None:
    """No task is left when nothing is held."""
    first, second = await admitted(quick, limit("user")), await admitted(quick, limit("team"))
    first.release()
    second.release()
    await others_ended()


async def test_one_heart_beats_for_all(quick: Limiter) -> None:
    """However many leases are held, there is one task for them."""
    before = len(asyncio.all_tasks())
    permits = [await admitted(quick, limit(capacity=9)) for _ in range(5)]
    assert len(asyncio.all_tasks()) == before + 1
    for permit in permits:
        permit.release()


async def others_ended() -> None:
    """Return when every other task has ended."""
    await asyncio.gather(*(task for task in asyncio.all_tasks() if task is not asyncio.current_task()))


class SlowStore(MemoryStore):
    """A store that takes so many turns of the event loop before it answers."""

    def __init__(self, turns: int) -> None:
        super().__init__(ttl=TTL)
        self._turns = turns

    async def acquire(self, lease: Lease) -> Answer:
        """Take slots after a while."""
        for _ in range(self._turns):
            await asyncio.sleep(0)
        return await super().acquire(lease)


@pytest.mark.parametrize("number", range(6))
async def test_request_cancelled_while_it_is_admitted_holds_nothing(number: int) -> None:
    """A request that gives up while the store is asked has no slot, and no heart beats for it."""
    events: list[Event] = []
    limiter = Limiter(SlowStore(turns=3), ttl=TTL, observer=events.append)
    asking = asyncio.create_task(limiter.admit([limit()]))
    for _ in range(number):
        await asyncio.sleep(0)
    if asking.cancel():
        assert await asyncio.gather(asking, return_exceptions=True)
        assert await held(limiter) == set()
        assert events == []
        assert asyncio.all_tasks() == {asyncio.current_task()}
    else:
        assert len(await held(limiter)) == 1
        assert isinstance(events[0], Admitted)


class Slow(MemoryStore):
    """A store of several workers that tells the others late, or not at all."""

    workers = 2
    asked = 0

    def __init__(self, tell: Callable[[], Awaitable[None]]) -> None:
        super().__init__(ttl=TTL)
        self._tell = tell

    async def told(self) -> None:
        """Let the others know."""
        self.asked += 1
        await self._tell()


async def cannot_be_told() -> None:
    """Fail as a store does."""
    raise StoreError("out")


@pytest.mark.parametrize("tell", [asyncio.Event().wait, cannot_be_told, partial(asyncio.sleep, 0)])
async def test_handing_back_takes_no_longer_than_it_is_worth(tell: Callable[[], Awaitable[None]]) -> None:
    """A store that cannot tell other workers in time holds up no answer and breaks none."""
    store = Slow(tell)
    permit = await admitted(Limiter(store, ttl=TTL), limit())
    permit.release()
    began = time.monotonic()
    await permit.handed_back()
    assert time.monotonic() - began < 1
    assert store.asked == 1


async def test_who_is_alone_tells_nobody(limiter: Limiter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a worker what is released is free at once: nothing is waited for."""
    monkeypatch.setattr(MemoryStore, "told", None)
    permit = await admitted(limiter, limit())
    permit.release()
    await permit.handed_back()
