"""Waiting until a deployment has room."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from litellm_parallel_limits import undecided
from litellm_parallel_limits.answers import Refusal
from litellm_parallel_limits.holder import Asked, Holder
from litellm_parallel_limits.limits import Limit, Patience, Scope
from litellm_parallel_limits.policy import OperatorLimit
from litellm_parallel_limits.room import Line
from litellm_parallel_limits.wait_rules import WaitRule
from tests.slots import Entry, Slots, asking, deployment, of_deployment, request
from tests.stores.asking import turns

A, B = deployment("a"), deployment("b")
RULE = WaitRule(20)
ASKED = replace(asking("gpt-4"), patience=Patience)
POOL = Limit(Scope("pool"), 1)


@pytest.fixture(autouse=True)
def _looks_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(undecided, "LOOK_SECONDS", 0)


class Room:
    """Slots of the deployments `a` and `b`, of one request each, and of a pool."""

    def __init__(self, pool: int = 9, rule: WaitRule = RULE) -> None:
        self.slots = Slots(OperatorLimit("pool", pool, wait=rule))
        self.slots.policy = replace(self.slots.policy, wait=rule)
        self.line = Line(self.slots.admission, self.slots.routing)

    async def answer(self, holder: Holder, asked: Asked = ASKED) -> Sequence[Entry] | Refusal:
        """Return the deployments that have room for a request, when there is one."""
        assert await self.slots.admission.admit(holder, asked) is None
        return await self.chosen(holder, asked)

    async def chosen(self, holder: Holder, asked: Asked = ASKED) -> Sequence[Entry] | Refusal:
        """Return the deployments that have room for a request that has been admitted."""
        call = asked.calls[0]
        room = await self.slots.routing.with_room(holder, asked, call, [A, B])
        if isinstance(room, Refusal) and self.line.may_wait(holder, asked, call, room):
            return await self.line.wait(holder, asked, call, [A, B])
        return room


async def waiting(work: Any) -> asyncio.Task[Any]:
    """Return a task that has to wait."""
    task = asyncio.create_task(work)
    await turns(50)
    assert not task.done(), task
    return task


def used(*limits: str) -> dict[str, int]:
    """Return what is in use where one slot is, in each of these."""
    return dict.fromkeys(limits, 1)


async def test_who_finds_all_full_is_given_the_first_that_has_room() -> None:
    """With what it meets itself, and nothing in the others."""
    room, holder = Room(), request()
    theirs = [await room.slots.take(of_deployment(one)) for one in "ab"]
    task = await waiting(room.answer(holder))
    theirs[1].release()
    answer = await task
    assert answer == [B]
    assert await room.slots.in_use() == used("pool", "deployment;deployment=a", "deployment;deployment=b")
    room.slots.routing.chose(holder, {"model_info": {"id": "b"}})
    assert int(holder.headers(200)["x-parallel-limit-waited-ms"]) > 0
    holder.end()
    assert await room.slots.in_use() == used("deployment;deployment=a")


async def test_who_waits_for_a_deployment_holds_nothing() -> None:
    """Not even what it was admitted to before."""
    room = Room()
    for one in "ab":
        await room.slots.take(of_deployment(one))
    task = await waiting(room.answer(request()))
    assert await room.slots.in_use() == used("deployment;deployment=a", "deployment;deployment=b")
    task.cancel()


async def test_who_finds_itself_full_by_then_waits_for_that() -> None:
    """It lets the deployment go to others meanwhile."""
    room, holder = Room(pool=1), request()
    theirs = [await room.slots.take(of_deployment(one)) for one in "ab"]
    task = await waiting(room.answer(holder))
    pool = await room.slots.take(POOL)
    theirs[0].release()
    await turns(50)
    assert not task.done()
    assert await room.slots.in_use() == used("pool", "deployment;deployment=b")
    pool.release()
    assert await task == [A]
    assert await room.slots.in_use() == used("pool", "deployment;deployment=a", "deployment;deployment=b")


async def test_nobody_waits_longer_than_it_may() -> None:
    """Then it is refused, and holds nothing."""
    room, holder = Room(rule=WaitRule(0.05)), request()
    for one in "ab":
        await room.slots.take(of_deployment(one))
    answer = await room.answer(holder)
    assert isinstance(answer, Refusal)
    assert answer.headers["x-parallel-limit-reason"] == "wait_timeout"
    assert not holder.is_holding


async def test_who_is_cancelled_holds_nothing() -> None:
    """And has no place in line."""
    room = Room()
    theirs = [await room.slots.take(of_deployment(one)) for one in "ab"]
    holder = request()
    task = await waiting(room.answer(holder))
    task.cancel()
    await asyncio.wait({task})
    holder.end()
    for permit in theirs:
        permit.release()
    await turns(50)
    assert await room.slots.in_use() == {}


@pytest.mark.parametrize(
    "asked",
    [
        replace(ASKED, patience=None),
        replace(ASKED, patience=lambda: Patience(seconds=0)),
        replace(asking("gpt-4", "other"), patience=Patience),
    ],
)
async def test_who_may_not_wait_is_refused(asked: Asked) -> None:
    """Nor does who asks for several models: it would with the slots of the others."""
    room = Room()
    for one in "ab":
        await room.slots.take(of_deployment(one))
    answer = await room.answer(request(), asked)
    assert isinstance(answer, Refusal)
    assert answer.headers["x-parallel-limit-reason"] == "limit"
