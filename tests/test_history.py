"""What was in flight and refused lately, as workers note it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from unittest import mock

import pytest

from litellm_parallel_limits.history import (
    LATELY_STEPS,
    MOST_REFUSING,
    STEP_SECONDS,
    STEPS,
    History,
    Refusals,
)
from litellm_parallel_limits.limits import Refused, Scope
from litellm_parallel_limits.stores.memory import MemoryStore
from tests.clock import Clock
from tests.faulty_store import FaultyStore
from tests.samples import limit


class Holds:
    """A worker that holds what a test says."""

    degraded = False

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.by_limit: dict[str, int] = {}
        self.in_flight = 0

    def slots(self) -> Mapping[str, int]:
        """Return what the test says."""
        return self.by_limit


@pytest.fixture
def clock() -> Clock:
    """A clock that a test advances."""
    return Clock()


@pytest.fixture
def holds(clock: Clock) -> Holds:
    """A worker on a store in memory."""
    return Holds(FaultyStore(ttl=30, clock=clock))


@pytest.fixture
def history(holds: Holds) -> History:
    """Its history."""
    return History(lambda: holds)


def refused(history: History, times: int = 1, of: str = "research", capacity: int = 2) -> None:
    """Let the history hear of refusals."""
    for _ in range(times):
        history(Refused(limit(of=of, capacity=capacity), capacity))


async def test_refusals_are_told_by_scope(history: History) -> None:
    """Each scope has the number of its refusals, and the lowest number it was refused at."""
    refused(history, 3)
    refused(history, 1, capacity=1)
    refused(history, 2, of="sales")
    lately = await history.refused_lately()
    assert lately == {limit().scope: Refusals(4, 1), limit(of="sales").scope: Refusals(2, 2)}


async def test_refusals_are_forgotten_after_a_minute(history: History, clock: Clock) -> None:
    """Lately is a minute."""
    refused(history)
    assert await history.refused_lately()
    clock.advance(LATELY_STEPS * STEP_SECONDS)
    assert await history.refused_lately() == {}


async def test_crowd_of_refused_strangers_stays_small(history: History) -> None:
    """Of more scopes than can be told only the limit is, and no refusal is lost."""
    for stranger in range(3 * MOST_REFUSING):
        refused(history, of=f"stranger-{stranger}")
        if stranger % MOST_REFUSING == MOST_REFUSING - 1:
            await history.note()
    lately = await history.refused_lately()
    assert len(lately) == MOST_REFUSING + 1
    assert lately[Scope("team")] == Refusals(2 * MOST_REFUSING, None)
    assert sum(one.number for one in lately.values()) == 3 * MOST_REFUSING


async def test_past_is_the_mean_of_each_step(history: History, holds: Holds, clock: Clock) -> None:
    """Of each step that is over the mean in flight is told, in all and for each limit, and the refusals."""
    clock.advance(STEP_SECONDS - clock() % STEP_SECONDS)
    for leases in (5, 5, 5, 0, 0):
        holds.in_flight, holds.by_limit = leases, {"team": 2 * leases}
        await history.note(sample=True)
        clock.advance(1)
    refused(history)
    await history.note()
    clock.advance(STEP_SECONDS)
    past = await history.past()
    assert (past.step_seconds, len(past.in_flight)) == (STEP_SECONDS, STEPS)
    assert (past.in_flight[-2:], past.refused[-2:]) == ([3.0, 0], [0, 1])
    assert past.limits["team"].in_flight[-2:] == [6.0, 0]
    assert past.limits["team"].refused[-2:] == [0, 1]


async def test_nothing_to_note_is_no_work(history: History, holds: Holds) -> None:
    """Once nothing is held, and every refusal is noted, nobody looks any more."""
    before = asyncio.all_tasks()
    refused(history)
    (noting,) = asyncio.all_tasks() - before
    await asyncio.wait_for(noting, 3)
    refused(history)
    assert len(asyncio.all_tasks() - before) == 1


async def test_store_that_fails_costs_nobody_anything(history: History, holds: Holds) -> None:
    """What cannot be noted is lost, and those that look later see what was noted since."""
    assert isinstance(holds.store, FaultyStore)
    holds.store.out = True
    refused(history)
    await history.note()
    holds.store.out = False
    refused(history)
    assert await history.refused_lately() == {limit().scope: Refusals(1, 2)}


async def test_second_is_looked_at_once(history: History, holds: Holds, clock: Clock) -> None:
    """However the store's clock jumps back, what is held in a second is noted once."""
    clock.advance(STEP_SECONDS - clock() % STEP_SECONDS + 0.99)
    holds.in_flight, holds.by_limit = 1, {"team": 1}
    sleeps = []

    async def sleep(seconds: float) -> None:
        sleeps.append(seconds)
        clock.advance(seconds if len(sleeps) % 2 else seconds - 0.02)
        if len(sleeps) == 20:
            holds.in_flight = 0

    with mock.patch("asyncio.sleep", sleep):
        await history._note_while_held()  # noqa: SLF001 (its clock is a test's)
    noted = await holds.store.noted([f"past-{int(clock()) // STEP_SECONDS - back}" for back in range(4)])
    assert max(step.get("held:", 0) for step in noted) == STEP_SECONDS
