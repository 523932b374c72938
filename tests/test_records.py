"""LiteLLM's records are read beside one another, under one deadline, and not asked for too often."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Hashable, Mapping

import pytest

from litellm_parallel_limits import records
from litellm_parallel_limits.errors import NoRecordError
from litellm_parallel_limits.events import Event, LookUpFailed
from litellm_parallel_limits.records import NOTHING_SECONDS, Found, LookUp, Records
from litellm_parallel_limits.sources import Record
from tests.clock import Clock
from tests.rig.polling import until

SHORT = 0.05
"""A deadline in seconds, for look-ups that miss it."""

LONG = 60.0
"""A deadline that nothing misses: a test that waited for it would be ended."""


class LiteLLM:
    """Somebody to be asked: it says what is in `says`, or raises it, once it is `let_go`."""

    def __init__(self, says: Found | Exception | None = None) -> None:
        self.says: Found | Exception = {} if says is None else says
        self.asked = 0
        self.let_go = asyncio.Event()
        self.let_go.set()

    async def __call__(self) -> Found:
        """Look something up."""
        self.asked += 1
        await self.let_go.wait()
        if isinstance(self.says, Exception):
            raise self.says
        return self.says


def number(value: object, record: Record = "user") -> Found:
    """Return a record with this number."""
    return {record: {"max_parallel_requests": value}}


@pytest.fixture
def clock() -> Clock:
    """Return a clock."""
    return Clock()


@pytest.fixture
def events() -> list[Event]:
    """Return what has happened."""
    return []


@pytest.fixture
def patient(clock: Clock, events: list[Event]) -> Records:
    """Return records with a deadline that nothing misses."""
    return Records(observer=events.append, deadline=LONG, clock=clock)


@pytest.fixture
def hasty(clock: Clock, events: list[Event]) -> Records:
    """Return records with a deadline that is soon missed."""
    return Records(observer=events.append, deadline=SHORT, clock=clock)


async def answered(look_up: LiteLLM) -> None:
    """Let a look-up answer, and everybody take note of it."""
    look_up.let_go.set()
    for _ in range(5):
        await asyncio.sleep(0)


async def failures(events: list[Event]) -> list[Exception]:
    """Return the errors told of."""
    return [event.error for event in events if isinstance(event, LookUpFailed)]


async def test_nothing_to_look_up_is_nothing_found(patient: Records) -> None:
    """A request whose limits need no record waits for nobody."""
    assert await patient.of({}) == {}


async def test_found_records_are_returned_together(patient: Records) -> None:
    """What every look-up finds is there, by record."""
    user, team = LiteLLM(number(1)), LiteLLM(number(2, "team"))
    assert await patient.of({"u": user, "t": team}) == {**number(1), **number(2, "team")}


async def test_parts_of_one_record_are_put_together(patient: Records) -> None:
    """Several look-ups may each know a part of one record, as of each tag: no part hides another."""
    found: list[Found] = [{"tag budgets": {tag: {"max_parallel_requests": 1}}} for tag in "abc"]
    together = await patient.of({place: LiteLLM(one) for place, one in enumerate(found)})
    assert set(together["tag budgets"]) == {"a", "b", "c"}


async def test_look_ups_run_beside_one_another(patient: Records) -> None:
    """One look-up does not wait for the other: here each waits until both have begun."""
    begun = [asyncio.Event(), asyncio.Event()]

    def look_up(one: int) -> LookUp:
        async def find() -> Found:
            begun[one].set()
            await begun[1 - one].wait()
            return number(one, "user" if one else "team")

        return find

    assert len(await patient.of({one: look_up(one) for one in (0, 1)})) == 2


async def test_found_record_is_asked_for_again(patient: Records) -> None:
    """Nothing found is kept here: LiteLLM's cache says when a number has changed, and it holds at once."""
    user = LiteLLM(number(1))
    assert await patient.of({"u": user}) == number(1)
    user.says = number(2)
    assert await patient.of({"u": user}) == number(2)


async def test_nothing_found_is_remembered_for_a_while(patient: Records, clock: Clock) -> None:
    """Where there is no record, nobody asks for it again until a time has passed."""
    user = LiteLLM()
    assert await patient.of({"u": user}) == {}
    clock.advance(NOTHING_SECONDS - 0.1)
    user.says = number(1)
    assert await patient.of({"u": user}) == {}
    assert user.asked == 1
    clock.advance(0.2)
    assert await patient.of({"u": user}) == number(1)


async def test_record_that_is_gone_sets_no_limit(patient: Records, clock: Clock) -> None:
    """Where LiteLLM says for certain that there is no record any more, what was last known does not hold."""
    user = LiteLLM(number(1))
    await patient.of({"u": user})
    user.says = {}
    assert await patient.of({"u": user}) == {}


async def test_perhaps_missing_record_holds_as_last_known(
    patient: Records, clock: Clock, events: list[Event]
) -> None:
    """Where LiteLLM says that there is none but may mean that it could not look, the last known holds."""
    user = LiteLLM(number(1))
    await patient.of({"u": user})
    user.says = NoRecordError("u")
    assert await patient.of({"u": user}) == number(1)
    assert await patient.of({"u": user}) == number(1)
    assert user.asked == 2
    assert events == []


@pytest.mark.parametrize("error", [OSError("down"), KeyError("x"), IndexError(), TypeError(), TimeoutError()])
async def test_failure_leaves_the_last_known_number(
    patient: Records, clock: Clock, events: list[Event], error: Exception
) -> None:
    """A look-up that fails leaves what was last known, and is told of once, not at every request."""
    user = LiteLLM(number(1))
    await patient.of({"u": user})
    user.says = error
    for _ in range(5):
        assert await patient.of({"u": user}) == number(1)
    assert await failures(events) == [error]
    assert user.asked == 2
    clock.advance(NOTHING_SECONDS + 0.1)
    assert await patient.of({"u": user}) == number(1)
    assert await failures(events) == [error, error]
    user.says = number(3)
    clock.advance(NOTHING_SECONDS + 0.1)
    assert await patient.of({"u": user}) == number(3)


async def test_failure_with_nothing_known_sets_no_limit(patient: Records, events: list[Event]) -> None:
    """Where a record was never read and cannot be, it sets no limit, and others are read nevertheless."""
    team = LiteLLM(number(2, "team"))
    assert await patient.of({"u": LiteLLM(OSError()), "t": team}) == number(2, "team")
    assert len(events) == 1


async def test_slow_look_up_costs_the_deadline_once(
    hasty: Records, clock: Clock, events: list[Event]
) -> None:
    """A look-up that does not answer is waited for once; until it answers no request waits for it again."""
    user = LiteLLM(number(1))
    user.let_go.clear()
    assert await hasty.of({"u": user}) == {}
    for _ in range(3):
        clock.advance(2 * NOTHING_SECONDS)
        began = time.monotonic()
        assert await hasty.of({"u": user}) == {}
        assert time.monotonic() - began < SHORT
    assert (user.asked, len(events)) == (1, 1)


async def test_late_answer_holds_from_then_on(hasty: Records, clock: Clock, events: list[Event]) -> None:
    """What a slow look-up finds at last holds from the next request, and it is asked again."""
    user = LiteLLM(number(1))
    user.let_go.clear()
    await hasty.of({"u": user})
    await answered(user)
    assert await hasty.of({"u": user}) == number(1)
    user.says = number(2)
    assert await hasty.of({"u": user}) == number(2)
    assert (user.asked, len(events)) == (3, 1)


async def test_late_nothing_is_remembered(hasty: Records, clock: Clock) -> None:
    """A slow look-up that finds nothing at last is remembered like any that finds nothing."""
    user = LiteLLM()
    user.let_go.clear()
    await hasty.of({"u": user})
    await answered(user)
    assert await hasty.of({"u": user}) == {}
    assert user.asked == 1


async def test_late_failure_is_told_once_more_at_most(hasty: Records, events: list[Event]) -> None:
    """A look-up that is late, and then fails, is no flood of events; last known numbers hold throughout."""
    user = LiteLLM(number(1))
    await hasty.of({"u": user})
    user.let_go.clear()
    user.says = OSError()
    assert await hasty.of({"u": user}) == number(1)
    await answered(user)
    for _ in range(3):
        assert await hasty.of({"u": user}) == number(1)
    assert 1 <= len(events) <= 2


async def test_slow_look_up_does_not_hide_the_others(hasty: Records, clock: Clock) -> None:
    """What is found in time is there, whatever else is slow, at this request and at the next."""
    user, team = LiteLLM(number(1)), LiteLLM(number(2, "team"))
    user.let_go.clear()
    for _ in range(2):
        assert await hasty.of({"u": user, "t": team}) == number(2, "team")
    assert team.asked == 2


async def test_slow_look_ups_share_one_deadline(hasty: Records) -> None:
    """However many look-ups are slow, a request waits for one deadline."""
    slow = [LiteLLM() for _ in range(20)]
    for one in slow:
        one.let_go.clear()
    began = time.monotonic()
    await hasty.of(dict(enumerate(slow)))
    assert SHORT * 0.9 <= time.monotonic() - began < 5 * SHORT


async def test_requests_at_the_same_time_share_a_look_up(patient: Records) -> None:
    """Requests that need one record at the same time ask for it once."""
    user = LiteLLM(number(1))
    user.let_go.clear()
    waiting = [asyncio.create_task(patient.of({"u": user})) for _ in range(10)]
    await answered(user)
    assert await asyncio.gather(*waiting) == [number(1)] * 10
    assert user.asked == 1


async def test_cancelled_request_leaves_the_look_up_to_the_others(patient: Records) -> None:
    """A request that is cancelled cancels no look-up: another that waits for it has its answer."""
    user = LiteLLM(number(1))
    user.let_go.clear()
    first = asyncio.create_task(patient.of({"u": user}))
    await asyncio.sleep(0)
    second = asyncio.create_task(patient.of({"u": user}))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await answered(user)
    assert await second == number(1)
    assert user.asked == 1


async def test_look_up_that_is_cancelled_is_asked_for_again(patient: Records) -> None:
    """A look-up that somebody cancels within LiteLLM finds nothing that time, and holds up nobody later."""

    async def cancelled() -> Found:
        raise asyncio.CancelledError

    assert await patient.of({"u": cancelled}) == {}
    assert await patient.of({"u": LiteLLM(number(1))}) == number(1)


async def test_stalled_event_loop_is_not_taken_for_a_slow_look_up(clock: Clock, events: list[Event]) -> None:
    """Where this process was held up for longer than the deadline, an answer that is there is taken."""
    stalled = Records(observer=events.append, deadline=SHORT, clock=clock)

    async def held_up() -> Found:
        for _ in range(2):
            time.sleep(2 * SHORT)  # noqa: ASYNC251 (it is what is tested)
            await asyncio.sleep(0)
        return number(1)

    assert await stalled.of({"u": held_up}) == number(1)
    assert events == []


async def test_look_up_knows_nothing_of_the_request(patient: Records) -> None:
    """A look-up goes on without the request that began it, and so keeps nothing of it alive."""
    from litellm_parallel_limits.holder import Holder, current_holder  # noqa: PLC0415

    seen: list[object] = []

    async def look_up() -> Found:
        seen.append(current_holder.get())
        return {}

    token = current_holder.set(Holder())
    try:
        await patient.of({"u": look_up})
    finally:
        current_holder.reset(token)
    assert seen == [None]


async def test_parties_are_apart(patient: Records) -> None:
    """One party's record says nothing of another's, nor one's failure."""
    look_ups: Mapping[Hashable, LiteLLM] = {"u1": LiteLLM(number(1)), "u2": LiteLLM(number(2))}
    for whose, look_up in look_ups.items():
        assert await patient.of({whose: look_up}) == look_up.says
    assert await patient.of({"u3": LiteLLM(OSError())}) == {}
    assert await patient.of({"u1": look_ups["u1"]}) == number(1)


async def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch, events: list[Event]) -> None:
    """Of many parties the last are remembered: of those found, and of those of whom there is nothing."""
    monkeypatch.setattr(records, "MOST_REMEMBERED", 10)
    bounded = Records(observer=events.append, deadline=LONG)
    found = [LiteLLM(number(place)) for place in range(50)]
    missing = [LiteLLM() for _ in range(50)]
    for place in range(50):
        await bounded.of({("found", place): found[place], ("missing", place): missing[place]})
    for one in (*found, *missing):
        one.says = OSError()
    known = [await bounded.of({("found", place): found[place]}) for place in range(50)]
    assert sum(map(bool, known)) <= 10
    assert known[-1] == number(49)
    asked_again = [await bounded.of({("missing", place): missing[place]}) for place in range(50)]
    assert not any(asked_again)
    assert sum(one.asked for one in missing) >= 90


async def test_look_ups_under_way_are_bounded(
    monkeypatch: pytest.MonkeyPatch, clock: Clock, events: list[Event]
) -> None:
    """Where LiteLLM's look-ups hang, further ones are not begun: requests go on with what is known."""
    monkeypatch.setattr(records, "MOST_RUNNING", 10)
    bounded = Records(observer=events.append, deadline=0.001, clock=clock)
    user = LiteLLM(number(1))
    await bounded.of({"u": user})
    hanging = [LiteLLM() for _ in range(50)]
    for one in hanging:
        one.let_go.clear()
        await bounded.of({one: one})
    assert sum(one.asked for one in hanging) <= 10
    assert await bounded.of({"u": user}) == number(1)
    for one in hanging:
        await answered(one)
    assert await bounded.of({hanging[-1]: hanging[-1]}) == {}
    assert hanging[-1].asked == 1


async def test_many_look_ups_of_one_request_are_bounded_as_well(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    """A request of very many tags begins no more look-ups than there may be."""
    monkeypatch.setattr(records, "MOST_RUNNING", 10)
    crowd = [LiteLLM(number(1)) for _ in range(50)]
    await Records(deadline=LONG, clock=clock).of({one: one for one in crowd})
    assert sum(one.asked for one in crowd) <= 10


async def test_finished_look_ups_leave_nothing_behind(patient: Records) -> None:
    """When requests have their answers no task of theirs is left."""
    before = asyncio.all_tasks()
    await patient.of({"u": LiteLLM(number(1)), "t": LiteLLM(OSError()), "m": LiteLLM()})
    await until(lambda: asyncio.all_tasks() == before, 1, asyncio.all_tasks)


async def test_observer_that_fails_costs_no_request() -> None:
    """Whatever an observer does, requests get what is known."""

    def observer(_: Event) -> None:
        raise OSError

    told = Records(observer=observer, deadline=SHORT)
    waiting: Awaitable[Found] = told.of({"u": LiteLLM(number(1))})
    assert await waiting == number(1)
