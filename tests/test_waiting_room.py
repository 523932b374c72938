"""A worker's side of waiting: how long, until who leaves, and what becomes of it when the store is out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from litellm_parallel_limits import waiting
from litellm_parallel_limits.errors import GoneError, StoreUnavailableError
from litellm_parallel_limits.events import Event, WaitBegan, WaitEnded
from litellm_parallel_limits.limiter import Limiter, Permit
from litellm_parallel_limits.limits import Limit, OnStoreFailure, Patience, Refused, Wait
from litellm_parallel_limits.waiting import Wish
from tests.faulty_store import FaultyStore
from tests.rig.polling import until
from tests.samples import limit
from tests.stores.asking import turns

TTL = 30.0


class Clock:
    """The event loop's time, of which a test may skip some."""

    skipped = 0.0

    def __call__(self) -> float:
        """Return seconds."""
        return asyncio.get_running_loop().time() + self.skipped


@pytest.fixture
def store() -> FaultyStore:
    """Return a store that can be out."""
    return FaultyStore(ttl=TTL, clock=lambda: 1000.0)


@pytest.fixture
def events() -> list[Event]:
    """Return what the limiter tells."""
    return []


@pytest.fixture
async def limiter(store: FaultyStore, events: list[Event]) -> Limiter:
    """Return a worker's limiter."""
    return Limiter(store, ttl=TTL, worker="w1", observer=events.append)


def awaited(
    capacity: int = 1, seconds: float = 60, most: int = 9, *, failing: OnStoreFailure = "share"
) -> Limit:
    """Return a limit that may be waited for."""
    return limit("team", capacity, on_store_failure=failing, wait=Wait(seconds, most))


async def never() -> None:
    """Never leave."""
    await asyncio.Event().wait()


def wish(*limits: Limit, patience: Patience | None = None, gone: Callable[[], Any] = never) -> Wish:
    """Return the wish for slots in `limits`."""

    async def now() -> Sequence[Limit]:
        return limits

    return Wish(now, patience or Patience(), gone)


async def held(limiter: Limiter, *limits: Limit) -> Permit:
    """Return the permit of a request that is admitted at once."""
    permit = await limiter.admit(limits)
    assert isinstance(permit, Permit), permit
    return permit


async def waiter(limiter: Limiter, *limits: Limit, wanted: Wish | None = None) -> asyncio.Task[Any]:
    """Return a request that waits."""
    task = asyncio.create_task(limiter.admit(limits, wish=wanted or wish(*limits)))
    await turns(10)
    assert not task.done(), task
    return task


async def test_who_waits_is_admitted_in_its_turn(limiter: Limiter, events: list[Event]) -> None:
    """And is told how long it waited; that it did is told as well."""
    full = awaited()
    permit = await held(limiter, full)
    task = await waiter(limiter, full)
    permit.release()
    admitted = await task
    assert isinstance(admitted, Permit)
    assert admitted.admitted.waited > 0
    began, ended = (event for event in events if isinstance(event, WaitBegan | WaitEnded))
    assert began == WaitBegan(full)
    assert isinstance(ended, WaitEnded)
    assert (ended.limit, ended.outcome) == (full, "admitted")


@pytest.mark.parametrize(
    ("seconds", "patience"), [(0.05, Patience()), (60, Patience(seconds=0.05)), (60, Patience(waited=59.95))]
)
async def test_nobody_waits_longer_than_it_may(limiter: Limiter, seconds: float, patience: Patience) -> None:
    """By its limit, by its own word, or with what it has waited before; then it is refused."""
    full = awaited(seconds=seconds)
    await held(limiter, full)
    answer = await limiter.admit([full], wish=wish(full, patience=patience))
    assert isinstance(answer, Refused)
    assert (answer.limit, answer.in_flight, answer.reason) == (full, 1, "wait_timeout")
    assert answer.waited >= 0.04


async def test_who_is_refused_has_no_place_any_more(limiter: Limiter) -> None:
    """The slot goes to the next."""
    full = awaited()
    permit = await held(limiter, full)
    await limiter.admit([full], wish=wish(full, patience=Patience(seconds=0.02)))
    task = await waiter(limiter, full)
    permit.release()
    assert isinstance(await task, Permit)


async def test_who_leaves_ends_its_wait(limiter: Limiter, events: list[Event]) -> None:
    """At once, and the next is served."""
    full, leaving = awaited(), asyncio.Event()

    async def gone() -> None:
        await leaving.wait()

    permit = await held(limiter, full)
    first = await waiter(limiter, full, wanted=wish(full, gone=gone))
    second = await waiter(limiter, full)
    leaving.set()
    with pytest.raises(GoneError):
        await first
    permit.release()
    assert isinstance(await second, Permit)
    assert [event.outcome for event in events if isinstance(event, WaitEnded)] == ["left", "admitted"]


async def test_who_leaves_when_its_turn_has_come_gives_it_on(limiter: Limiter) -> None:
    """A slot granted to one that just left goes to the next."""
    full, leaving = awaited(), asyncio.Event()

    async def gone() -> None:
        await leaving.wait()

    permit = await held(limiter, full)
    first = await waiter(limiter, full, wanted=wish(full, gone=gone))
    second = await waiter(limiter, full)
    permit.release()
    leaving.set()
    with pytest.raises(GoneError):
        await first
    assert isinstance(await second, Permit)


@pytest.mark.parametrize("moment", range(6))
async def test_who_is_cancelled_holds_nothing(limiter: Limiter, moment: int) -> None:
    """Whenever it is: before its turn, at it, and after."""
    full = awaited()
    permit = await held(limiter, full)
    first = await waiter(limiter, full)
    second = await waiter(limiter, full)
    permit.release()
    await turns(moment)
    if first.cancel():
        await asyncio.wait({first})
    if first.cancelled():
        assert isinstance(await second, Permit)
    else:
        first.result().release()
        assert isinstance(await second, Permit)


async def test_a_raised_limit_admits_who_waits(limiter: Limiter, monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks from time to time what it meets by now."""
    monkeypatch.setattr(waiting, "RENEW_SECONDS", 0.01)
    numbers = [1]

    async def now() -> Sequence[Limit]:
        return [awaited(numbers[0])]

    await held(limiter, awaited())
    task = await waiter(limiter, awaited(), wanted=Wish(now, Patience(), never))
    numbers[0] = 2
    assert isinstance(await asyncio.wait_for(task, 5), Permit)


async def test_who_waits_looks_at_once_when_it_is_told_to(limiter: Limiter) -> None:
    """The operator has changed the limits."""
    numbers = [1]

    async def now() -> Sequence[Limit]:
        return [awaited(numbers[0])]

    await held(limiter, awaited())
    task = await waiter(limiter, awaited(), wanted=Wish(now, Patience(), never))
    numbers[0] = 2
    limiter.look_again()
    assert isinstance(await asyncio.wait_for(task, 2), Permit)


async def test_while_the_store_is_out_a_share_is_waited_for(limiter: Limiter, store: FaultyStore) -> None:
    """Who waits goes on waiting, here, and is admitted by what this worker holds."""
    full = awaited(2)
    permits = [await held(limiter, full) for _ in range(2)]
    task = await waiter(limiter, full)
    store.out = True
    await limiter.beat()
    assert limiter.degraded
    await turns(10)
    assert not task.done()
    permits[0].release()
    assert isinstance(await asyncio.wait_for(task, 5), Permit)


async def test_while_the_store_is_out_no_more_wait_than_may(limiter: Limiter, store: FaultyStore) -> None:
    """The bounds hold here as well."""
    full = awaited(most=2)
    store.out = True
    await held(limiter, full)
    waiters = [await waiter(limiter, full) for _ in range(2)]
    answer = await limiter.admit([full], wish=wish(full))
    assert isinstance(answer, Refused)
    assert answer.reason == "queue_full"
    for one in waiters:
        one.cancel()


async def test_while_the_store_is_out_time_passes(limiter: Limiter, store: FaultyStore) -> None:
    """Who has waited as long as it may is refused."""
    full = awaited(seconds=0.05)
    store.out = True
    await held(limiter, full)
    answer = await limiter.admit([full], wish=wish(full))
    assert isinstance(answer, Refused)
    assert answer.reason == "wait_timeout"


async def test_a_limit_that_says_deny_is_not_waited_for(limiter: Limiter, store: FaultyStore) -> None:
    """While it cannot be checked."""
    full = awaited(failing="deny")
    permit = await held(limiter, full)
    task = await waiter(limiter, full)
    store.out = True
    await limiter.beat()
    with pytest.raises(StoreUnavailableError):
        await task
    permit.release()


async def test_who_waited_goes_on_when_the_store_is_back(limiter: Limiter, store: FaultyStore) -> None:
    """In the store's line."""
    full = awaited()
    permit = await held(limiter, full)
    tasks = [await waiter(limiter, full) for _ in range(3)]
    store.out = True
    await limiter.beat()
    store.out = False
    await limiter.beat()
    assert not limiter.degraded
    for _ in tasks:
        permit.release()
        await until(lambda: any(task.done() for task in tasks), 5, lambda: "nobody was admitted")
        (done,) = [task for task in tasks if task.done()]
        tasks.remove(done)
        permit = done.result()
    permit.release()
