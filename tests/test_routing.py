"""What a request holds of the deployments that LiteLLM's router chooses among."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from litellm_parallel_limits import undecided
from litellm_parallel_limits.answers import Refusal
from litellm_parallel_limits.errors import StoreError
from litellm_parallel_limits.holder import Asked, Holder
from litellm_parallel_limits.limits import Answer, Lease
from litellm_parallel_limits.models import choosing
from litellm_parallel_limits.policy import OperatorLimit
from litellm_parallel_limits.sources import Call
from litellm_parallel_limits.stores.memory import MemoryStore
from tests.slots import Entry, Slots, asking, deployment, of_deployment, request

A, B, FREE = deployment("a"), deployment("b"), deployment("free", None)
ASKED = asking("gpt-4")


@pytest.fixture(autouse=True)
def _looks_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(undecided, "LOOK_SECONDS", 0)


@pytest.fixture
def slots() -> Slots:
    """Return slots in a store of this process."""
    return Slots()


def ids(answer: Sequence[Entry] | Refusal) -> list[str]:
    """Return which deployments have room."""
    assert not isinstance(answer, Refusal)
    return [entry["model_info"]["id"] for entry in answer]


async def with_room(
    slots: Slots, holder: Holder, asked: Asked, deployments: Sequence[Entry]
) -> Sequence[Entry] | Refusal:
    """Return what has room of these deployments for the last of the calls asked for."""
    return await slots.routing.with_room(holder, asked, asked.calls[-1], deployments)


def used(*deployments: str) -> dict[str, int]:
    """Return what is in use where one slot is, in each of these."""
    return {f"deployment;deployment={one}": 1 for one in deployments}


async def test_deployments_without_limits_are_all_returned(slots: Slots) -> None:
    """Where no deployment is limited, all have room and nothing is held."""
    holder = request()
    deployments = [FREE, deployment("other", None)]
    assert await with_room(slots, holder, ASKED, deployments) is deployments
    assert not holder.attempts
    assert not holder.is_holding


async def test_slot_is_held_in_each_that_has_room(slots: Slots) -> None:
    """Until the router has chosen, a slot is held in every limited deployment that it may choose."""
    assert ids(await with_room(slots, request(), ASKED, [A, FREE, B])) == ["a", "free", "b"]
    assert await slots.in_use() == used("a", "b")


async def test_full_deployment_is_left_out(slots: Slots) -> None:
    """Of two limited deployments of which one is full, the other is returned, and the unlimited ones."""
    await slots.take(of_deployment("a"))
    holder = request()
    assert ids(await with_room(slots, holder, ASKED, [A, B, FREE])) == ["b", "free"]
    assert await slots.in_use() == used("a", "b")


async def test_unlimited_deployment_always_has_room(slots: Slots) -> None:
    """Where every limited deployment is full, an unlimited one still answers, and nothing is held."""
    await slots.take(of_deployment("a"))
    holder = request()
    assert ids(await with_room(slots, holder, ASKED, [A, FREE])) == ["free"]
    assert not holder.is_holding


async def test_nothing_is_held_where_all_are_full(slots: Slots) -> None:
    """Where every deployment is full, the request is refused, and holds nothing."""
    theirs = [await slots.take(of_deployment(one)) for one in ("a", "b")]
    holder = request()
    answer = await with_room(slots, holder, ASKED, [A, B])
    assert isinstance(answer, Refusal)
    assert answer.status == 429
    assert not holder.is_holding
    for permit in theirs:
        permit.release()
    assert await slots.in_use() == {}


async def test_refusal_is_that_of_the_shorter_wait(slots: Slots) -> None:
    """Where all are full, the client is told the shortest of their waits: a blocked one's is the longest."""
    await slots.take(of_deployment("a"))
    for deployments in ([deployment("closed", 0), A], [A, deployment("closed", 0)]):
        answer = await with_room(slots, request(), ASKED, deployments)
        assert isinstance(answer, Refusal)
        assert answer.headers["retry-after"] == "1"
        assert "x-should-retry" not in answer.headers


async def test_who_finds_all_full_waits_for_those_whose_router_chooses(
    slots: Slots, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who holds several while its router chooses soon holds one: the other is there for the next."""
    monkeypatch.setattr(undecided, "LOOK_SECONDS", 60)
    other = request()
    assert ids(await with_room(slots, other, ASKED, [A, B])) == ["a", "b"]
    waiting = [asyncio.create_task(with_room(slots, request(), ASKED, [A, B])) for _ in range(2)]
    for _ in range(20):
        await asyncio.sleep(0)  # lets them find both full
    assert not any(task.done() for task in waiting)
    monkeypatch.setattr(undecided, "LOOK_SECONDS", 0)
    slots.routing.chose(other, A)
    found = await asyncio.gather(*waiting)
    assert sorted(len(answer) for answer in found if not isinstance(answer, Refusal)) == [1]
    assert await slots.in_use() == used("a", "b")


@pytest.mark.parametrize("capacities", [{"a": 2, "b": 2}, {f"box-{n}": 1 for n in range(8)}], ids=len)
async def test_as_many_as_there_is_room_for_are_never_refused(capacities: Mapping[str, int]) -> None:
    """However briskly they come and go, and whatever the router chooses: somebody's room is always there."""
    slots, chance = Slots(store=SlowStore(ttl=30)), random.Random(0)
    deployments = [deployment(one, number) for one, number in capacities.items()]

    async def client() -> list[bool]:
        return [await one_request() for _ in range(50)]

    async def one_request() -> bool:
        holder = request()
        answer = await with_room(slots, holder, ASKED, deployments)
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)
        if not isinstance(answer, Refusal):
            slots.routing.chose(holder, chance.choice(answer))
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)
        holder.close()
        return not isinstance(answer, Refusal)

    admitted = await asyncio.gather(*(client() for _ in range(sum(capacities.values()))))
    assert all(map(all, admitted))
    assert await slots.in_use() == {}


@pytest.mark.parametrize(("workers", "looks"), [(1, 1), (2, 4)])
async def test_who_finds_nobody_choosing_looks_no_further(
    workers: int, looks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many that look together nobody gives anything back: none looks again for the sake of the others.

    Of those of other workers nobody knows: three times more is looked for their sake.
    """
    monkeypatch.setattr(MemoryStore, "workers", workers)
    store = CountingStore(ttl=30)
    slots = Slots(store=store)
    for one in ("a", "b"):
        await slots.take(of_deployment(one))
    answers = await asyncio.gather(*(with_room(slots, request(), ASKED, [A, B]) for _ in range(50)))
    assert all(isinstance(answer, Refusal) for answer in answers)
    assert store.asked == 2 + 50 * 2 * looks


async def _never_chosen_for(slots: Slots) -> None:
    await with_room(slots, request(), ASKED, [A, B])
    await asyncio.Event().wait()


async def test_router_that_never_chooses_is_not_waited_for(
    slots: Slots, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who finds all full because of one for whom the router never chooses is refused in the end."""
    monkeypatch.setattr(undecided, "CHOICE_SECONDS", 0.01)
    stuck = asyncio.create_task(_never_chosen_for(slots))
    answers = await asyncio.gather(*(with_room(slots, request(), ASKED, [A, B]) for _ in range(2)))
    assert all(isinstance(answer, Refusal) for answer in answers)
    stuck.cancel()


@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_request_that_ends_before_the_choice_leaves_its_room_to_others(
    slots: Slots, *, is_cancelled: bool
) -> None:
    """Who waits for a request for which the router never chose has what that held when it is over."""
    holder, over = request(), asyncio.Event()

    async def other() -> None:
        try:
            await with_room(slots, holder, ASKED, [A, B])
            await over.wait()
        finally:
            holder.close()

    task = asyncio.create_task(other())
    await asyncio.sleep(0)
    waiting = asyncio.create_task(with_room(slots, request(), ASKED, [A, B]))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not waiting.done()
    if is_cancelled:
        task.cancel()
    over.set()
    with suppress(asyncio.CancelledError):
        await task
    del task
    assert len(ids(await waiting)) == 1


async def test_chosen_deployment_is_held_and_no_other(slots: Slots) -> None:
    """When the router has chosen, the slots in the other deployments are given back."""
    holder = request()
    await with_room(slots, holder, ASKED, [A, B, FREE])
    slots.routing.chose(holder, B)
    assert await slots.in_use() == used("b")
    slots.routing.chose(holder, B)
    assert await slots.in_use() == used("b")


async def test_choice_of_an_unlimited_one_gives_all_back(slots: Slots) -> None:
    """When the router has chosen an unlimited deployment, nothing is held of the limited ones."""
    holder = request()
    await with_room(slots, holder, ASKED, [A, B, FREE])
    slots.routing.chose(holder, FREE)
    assert await slots.in_use() == {}


async def test_choice_of_another_deployment_changes_nothing(slots: Slots) -> None:
    """A deployment that the router was not offered is none of this request's attempts."""
    holder = request()
    await with_room(slots, holder, ASKED, [A])
    slots.routing.chose(holder, B)
    slots.routing.failed(holder, B)
    slots.routing.chose(holder, {})
    assert await slots.in_use() == used("a")


async def test_next_attempt_gives_the_former_back(slots: Slots) -> None:
    """A retry, or a fallback, takes the place of the attempt before it in its task."""
    holder = request()
    await with_room(slots, holder, ASKED, [A, B])
    slots.routing.chose(holder, A)
    assert ids(await with_room(slots, holder, ASKED, [A])) == ["a"]
    assert ids(await with_room(slots, holder, ASKED, [B])) == ["b"]
    assert await slots.in_use() == used("b")
    await with_room(slots, holder, ASKED, [FREE])
    assert await slots.in_use() == {}


async def test_failed_attempt_gives_back(slots: Slots) -> None:
    """The slot in a deployment that failed is free before the next attempt begins."""
    holder = request()
    await with_room(slots, holder, ASKED, [A, B])
    slots.routing.chose(holder, A)
    slots.routing.failed(holder, A)
    assert await slots.in_use() == {}
    slots.routing.failed(holder, A)
    assert ids(await with_room(slots, holder, ASKED, [A])) == ["a"]


async def test_failure_before_the_choice_is_known_gives_all_back(slots: Slots) -> None:
    """An attempt that failed gives back all that it held, also where nobody told of the choice."""
    holder = request()
    await with_room(slots, holder, ASKED, [A, B])
    slots.routing.failed(holder, B)
    assert await slots.in_use() == {}


async def test_parallel_tasks_are_apart(slots: Slots) -> None:
    """Models that a request asks for at the same time each hold their own, and give back only that."""
    holder = request()
    two = deployment("two", 2)
    has_chosen, may_fail = asyncio.Event(), asyncio.Event()

    async def first() -> None:
        await with_room(slots, holder, ASKED, [A, two])
        slots.routing.chose(holder, two)
        has_chosen.set()
        await may_fail.wait()
        slots.routing.failed(holder, two)

    async def second() -> None:
        await has_chosen.wait()
        await with_room(slots, holder, ASKED, [B, two])
        slots.routing.chose(holder, two)
        assert await slots.in_use() == {"deployment;deployment=two": 2}
        may_fail.set()

    await asyncio.gather(first(), second())
    assert await slots.in_use() == used("two")
    holder.close()
    assert await slots.in_use() == {}


async def test_choice_may_be_told_in_another_task(slots: Slots) -> None:
    """Where LiteLLM calls the provider in a task of its own, the choice is still that of the attempt."""
    holder = request()
    await with_room(slots, holder, ASKED, [A, B])

    async def calls() -> None:
        slots.routing.chose(holder, A)

    await asyncio.create_task(calls())
    assert await slots.in_use() == used("a")


async def test_end_of_the_request_gives_everything_back(slots: Slots) -> None:
    """Whatever the router has done, nothing is held when the request has ended, nor taken afterwards."""
    holder = request()
    await with_room(slots, holder, ASKED, [A, B])
    holder.close()
    assert await slots.in_use() == {}
    slots.routing.chose(holder, A)
    await with_room(slots, holder, ASKED, [A, B])
    assert await slots.in_use() == {}


async def test_slot_taken_with_the_model_is_not_taken_again(slots: Slots) -> None:
    """Of a model's only deployment the slot was taken with the model: the router is offered it as it is."""
    holder, asked = request(), Asked("run", "id", (choosing(Call(), A),))
    assert await slots.admission.admit(holder, asked) is None
    assert await slots.in_use() == used("a")
    assert ids(await with_room(slots, holder, asked, [A])) == ["a"]
    assert await slots.in_use() == used("a")
    slots.routing.failed(holder, A)
    assert ids(await with_room(slots, holder, asked, [A])) == ["a"]
    assert await slots.in_use() == used("a")


async def test_slot_of_a_model_gone_on_to_is_not_taken_again(slots: Slots) -> None:
    """Nor is it where the model is one that the router went on to, beside others asked for."""
    holder, asked = request(), asking("x", "y")
    assert await slots.admission.admit(holder, asked) is None
    assert await slots.admission.go_on(holder, asked, choosing(Call(), A), instead=True) is None
    assert holder.asked is not None
    assert ids(await with_room(slots, holder, holder.asked, [A])) == ["a"]
    assert await slots.in_use() == used("a")


async def test_slot_of_one_model_of_a_list_is_not_anothers() -> None:
    """Where a list names a deployment itself and a group that it is one of, each call holds a slot in it."""
    slots, holder, entry = Slots(), request(), deployment("a", 2)
    asked = Asked("run", "id", (choosing(Call(), entry), *ASKED.calls))
    assert await slots.admission.admit(holder, asked) is None
    assert ids(await with_room(slots, holder, asked, [entry, FREE])) == ["a", "free"]
    assert await slots.in_use() == {"deployment;deployment=a": 2}


async def test_nested_call_is_not_refused_for_its_own_request(slots: Slots) -> None:
    """A call nested in a request may use the deployment in which that request holds the only slot."""
    holder = request()
    outer, nested = (Asked(run, "id", (choosing(Call(), A),)) for run in ("run", "nested"))
    assert await slots.admission.admit(holder, outer) is None
    assert ids(await with_room(slots, holder, outer, [A])) == ["a"]
    assert await slots.admission.admit(holder, nested) is None
    assert ids(await with_room(slots, holder, nested, [A])) == ["a"]
    assert await slots.in_use() == used("a")


async def test_operator_limits_by_deployment_hold_as_well() -> None:
    """A limit of the operator's that counts by deployment is met by each, beside its own number."""
    slots = Slots(OperatorLimit("each", 1, by=("deployment",)))
    holder = request()
    assert ids(await with_room(slots, holder, ASKED, [deployment("a", 5), FREE])) == ["a", "free"]
    assert await slots.in_use() == {
        "deployment;deployment=a": 1,
        "each;deployment=a": 1,
        "each;deployment=free": 1,
    }
    assert isinstance(await with_room(slots, request(), ASKED, [deployment("a", 5), FREE]), Refusal)


async def test_other_limits_of_the_operators_are_not_met_again() -> None:
    """What does not count by deployment was met when the request came in."""
    slots = Slots(OperatorLimit("all", 1), OperatorLimit("each", 1, by=("model",)))
    assert ids(await with_room(slots, request(), ASKED, [A])) == ["a"]
    assert await slots.in_use() == used("a")


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"model_info": None},
        {"model_info": []},
        {"model_info": {"id": None, "parallel_limits": 5}},
        {"model_info": {"id": [], "parallel_limits": {"max_parallel_requests": "many"}}},
        {"model_info": {"id": "x", "parallel_limits": {"max_parallel_requests": None}}},
    ],
)
async def test_odd_deployments_are_unlimited(slots: Slots, entry: Entry) -> None:
    """A deployment that says nothing sound of limits has none."""
    holder = request()
    assert await with_room(slots, holder, ASKED, [entry]) == [entry]
    slots.routing.chose(holder, entry)
    slots.routing.failed(holder, entry)
    assert not holder.is_holding


async def test_outage_leaves_a_refusal_or_a_share() -> None:
    """While the store is out, a deployment is offered as far as this worker's share of it goes."""

    class Out(MemoryStore):
        async def acquire(self, _: Lease) -> Answer:
            raise StoreError("out")

        async def renew(self, _: Sequence[Lease]) -> None:
            raise StoreError("out")

    slots = Slots(store=Out(ttl=30))
    first, second = request(), request()
    assert ids(await with_room(slots, first, ASKED, [A])) == ["a"]
    assert isinstance(await with_room(slots, second, ASKED, [A]), Refusal)
    first.close()
    assert ids(await with_room(slots, second, ASKED, [A])) == ["a"]
    second.close()


class SlowStore(MemoryStore):
    """Lets others run before and after it takes slots; `steps` says how often, alternately."""

    steps = (1, 1)

    async def acquire(self, lease: Lease) -> Answer:
        """Take slots, and give them back where nobody waits for them any more."""
        before, after = self.steps
        for _ in range(before):
            await asyncio.sleep(0)
        answer = await super().acquire(lease)
        try:
            for _ in range(after):
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.release(lease)
            raise
        return answer


class CountingStore(MemoryStore):
    """Counts how often it was asked for slots."""

    asked = 0

    async def acquire(self, lease: Lease) -> Answer:
        """Take slots, as any store does."""
        self.asked += 1
        return await super().acquire(lease)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("turns", range(14))
async def test_request_that_ends_while_slots_are_taken_holds_nothing(turns: int, *, full: bool) -> None:
    """Wherever a request is cancelled, nothing of it is held when it has ended."""
    slots = Slots(store=SlowStore(ttl=30))
    theirs = [await slots.take(of_deployment(one)) for one in ("a", "b")] if full else []
    holder = request()
    task = asyncio.create_task(with_room(slots, holder, ASKED, [A, B, deployment("c")][: 3 - full]))
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    holder.close()
    for permit in theirs:
        permit.release()
    assert await slots.in_use() == {}


@pytest.mark.parametrize("turns", range(10))
async def test_request_that_is_over_while_slots_are_taken_holds_nothing(turns: int) -> None:
    """Where the request ends and its task goes on, what the task takes is given back at once."""
    slots = Slots(store=SlowStore(ttl=30))
    holder = request()
    task = asyncio.create_task(with_room(slots, holder, ASKED, [A, B]))
    for _ in range(turns):
        await asyncio.sleep(0)
    holder.close()
    await task
    assert await slots.in_use() == {}


@dataclass
class Party:
    """A request, and the deployments that its router was offered."""

    holder: Holder = field(default_factory=request)
    offered: list[str] = field(default_factory=list)


CAPACITIES = {"a": 1, "b": 2, "c": 1}
steps = st.tuples(
    st.sampled_from(["filter", "choose", "fail", "end"]),
    st.integers(0, 3),
    st.lists(st.sampled_from([*CAPACITIES, "free"]), min_size=1, max_size=4, unique=True),
)


@given(st.lists(steps, max_size=25))
@settings(deadline=None, max_examples=60)
def test_deployments_are_never_overrun(doings: list[tuple[str, int, list[str]]]) -> None:
    """Whatever requests and their routers do, no deployment is held more often than its number allows.

    What a request was offered it holds, and when all have ended nothing is held.
    """
    entries = {one: deployment(one, number) for one, number in CAPACITIES.items()} | {"free": FREE}

    async def does(slots: Slots, party: Party, doing: str, wanted: list[str]) -> None:
        match doing:
            case "filter":
                answer = await with_room(slots, party.holder, ASKED, [entries[one] for one in wanted])
                party.offered = [] if isinstance(answer, Refusal) else ids(answer)
            case "choose" if party.offered:
                party.offered = party.offered[:1]
                slots.routing.chose(party.holder, entries[party.offered[0]])
            case "fail" if party.offered:
                slots.routing.failed(party.holder, entries[party.offered[0]])
                party.offered = []
            case "end":
                party.holder.close()
                party.holder, party.offered = request(), []

    async def run() -> None:
        slots = Slots()
        parties = [Party() for _ in range(4)]
        for doing, whose, wanted in doings:
            await does(slots, parties[whose], doing, wanted)
            held = [one for party in parties for one in party.offered if one != "free"]
            in_use = await slots.in_use()
            assert in_use == {f"deployment;deployment={one}": held.count(one) for one in set(held)}
            assert all(held.count(one) <= CAPACITIES[one] for one in held)
        for party in parties:
            party.holder.close()
        assert await slots.in_use() == {}

    asyncio.run(run())
