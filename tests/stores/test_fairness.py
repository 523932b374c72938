"""Nobody waits longer than is said here, whoever else waits."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

import pytest

from litellm_parallel_limits.limits import Lease, Limit, Patience, Wait, Waiting
from litellm_parallel_limits.stores import Store
from litellm_parallel_limits.stores.order import MOST_PASSES, MOST_TURNS, PRIORITY_SECONDS
from tests.samples import lease, limit
from tests.stores.asking import admitted, renewed
from tests.stores.storages import TTL, SharedStorage, Storage


def awaited(name: str = "team", capacity: int = 1, *, flow: str = "") -> Limit:
    """Return a limit that may be waited for."""
    return limit(name, capacity, wait=Wait(60, 1000, flow))


@dataclass
class Line:
    """Those that wait in `store`, by name, and a slot that goes round among them, turn by turn."""

    store: Store
    held: Lease
    places: dict[Waiting, str] = field(default_factory=dict)
    turns: Counter[str] = field(default_factory=Counter)

    async def join(self, name: str, *limits: Limit, priority: int = 0) -> None:
        """Let one more wait."""
        place = await self.store.wait(lease(*limits), Patience(priority))
        assert isinstance(place, Waiting), place
        self.places[place] = name

    async def turn(self) -> str:
        """Give the slot to the next, and return its name."""
        self.store.release(self.held)
        await asyncio.wait(
            [place.turn for place in self.places], timeout=5, return_when=asyncio.FIRST_COMPLETED
        )
        (place,) = [place for place in self.places if place.turn.done()]
        self.held = place.turn.result().lease
        name = self.places.pop(place)
        self.turns[name] += 1
        return name


@pytest.mark.parametrize("backlog", [(3, 3), (1, 9)])
async def test_flows_that_always_wait_have_as_many_turns(store: Store, backlog: tuple[int, int]) -> None:
    """They differ by one turn at most at any time, however many of each wait."""
    full = {name: awaited(flow=name) for name in "ab"}
    line = Line(store, await admitted(store, lease(full["a"])))
    for name, number in zip("ab", backlog, strict=True):
        for _ in range(number):
            await line.join(name, full[name])
    for _ in range(20):
        name = await line.turn()
        assert abs(line.turns["a"] - line.turns["b"]) <= 1
        await line.join(name, full[name])


async def test_newcomer_waits_for_one_turn_of_each_other_flow(store: Store) -> None:
    """However many of them wait, and have waited."""
    full = {name: awaited(flow=name) for name in "abcd"}
    line = Line(store, await admitted(store, lease(full["a"])))
    for name in "aaaaabbbbbccccc":
        await line.join(name, full[name])
    for _ in range(4):
        await line.turn()
    await line.join("d", full["d"])
    before = [await line.turn() for _ in range(4)]
    assert "d" in before
    assert max(Counter(before).values()) == 1


async def test_who_needs_two_slots_misses_eight_turns_at_most(store: Store) -> None:
    """Beside others that always wait for one of them: then it takes the next that come free."""
    full = (awaited("one", 2), awaited("two", 2))
    lines = [Line(store, await admitted(store, lease(one))) for one in full]
    others = [await admitted(store, lease(one)) for one in full]
    both = await store.wait(lease(*full), Patience())
    assert isinstance(both, Waiting)
    for number in range(MOST_PASSES - 1):
        await lines[number % 2].join("other", full[number % 2])
        await lines[number % 2].turn()
    behind = [await store.wait(lease(one), Patience()) for one in full]
    store.release(lines[1].held)
    store.release(others[0])
    await asyncio.wait_for(both.turn, 5)
    assert not any(place.turn.done() for place in behind if isinstance(place, Waiting))


@pytest.mark.parametrize("priority", [1, 3])
async def test_a_step_of_priority_is_worth_five_seconds(storage: Storage, priority: int) -> None:
    """Not more, whoever comes, and not less."""
    store, full = storage.store(), awaited()
    line = Line(store, await admitted(store, lease(full)))
    await line.join("late", full, priority=priority)
    for _ in range(priority * PRIORITY_SECONDS - 1):
        await storage.age(1)
        await line.join("urgent", full)
        assert await line.turn() == "urgent"
    for _ in range(2):
        await storage.age(1)
        await line.join("urgent", full)
        await line.turn()
    assert line.turns["late"] == 1


async def test_the_dead_are_passed_over_however_many_they_are(shared_storage: SharedStorage) -> None:
    """A call looks at so many of them, the next at the others."""
    living, dead = shared_storage.store("living"), shared_storage.store("dead")
    for store in (living, dead):
        await renewed(store)
    full = awaited()
    held = await admitted(living, lease(full, worker="living"))
    for _ in range(MOST_TURNS + 5):
        await dead.wait(lease(full, worker="dead"), Patience())
    for _ in range(3):
        await shared_storage.age(TTL / 2)
        await living.renew([held])
    place = await living.wait(lease(full, worker="living"), Patience())
    assert isinstance(place, Waiting)
    living.release(held)
    await living.renew([])
    await living.renew([])
    await asyncio.wait_for(place.turn, 5)
