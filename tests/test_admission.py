"""How a request comes to hold a slot in every limit that it meets, or in none."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress

import pytest

from litellm_parallel_limits.answers import Refusal
from litellm_parallel_limits.errors import TooManyLimitsError
from litellm_parallel_limits.holder import Asked, Holder
from litellm_parallel_limits.limits import Answer, Lease
from litellm_parallel_limits.policy import MOST_SCOPES, OperatorLimit
from litellm_parallel_limits.sources import Call, Identity
from litellm_parallel_limits.stores.memory import MemoryStore
from tests.slots import Slots, asking, request

EVERYBODY = OperatorLimit("all", 9)
EACH_MODEL = OperatorLimit("each", 1, by=("model",))
POOL = OperatorLimit("pool", 2, models=("m*",))


def told(holder: Holder, status: int = 200) -> Mapping[str, str]:
    """Return what the answer of a request tells of its limits."""
    return holder.headers(status)


async def test_call_holds_what_it_meets() -> None:
    """A request holds one slot in each limit that it meets, and its answer tells of them."""
    slots, holder = Slots(EVERYBODY, EACH_MODEL), request()
    assert await slots.admission.admit(holder, asking("m1")) is None
    assert await slots.in_use() == {"all": 1, "each;model=m1": 1}
    assert told(holder)["x-ratelimit-all-remaining-max_parallel_requests"] == "8"
    holder.close()
    assert await slots.in_use() == {}


async def test_refused_request_holds_nothing() -> None:
    """A request that one limit refuses holds no slot in the others; its answer names that limit."""
    slots = Slots(EVERYBODY, EACH_MODEL)
    other, holder = request(), request()
    await slots.admission.admit(other, asking("m1"))
    refusal = await slots.admission.admit(holder, asking("m1"))
    assert isinstance(refusal, Refusal)
    assert not holder.is_holding
    assert told(holder, 429)["x-parallel-limit-name"] == "each"
    assert told(holder, 500) == {}
    assert await slots.in_use() == {"all": 1, "each;model=m1": 1}


async def test_run_again_takes_the_place_of_the_run_before() -> None:
    """When LiteLLM runs its hooks again, what the request held before gives way: it never refuses itself."""
    slots, holder = Slots(EVERYBODY, EACH_MODEL), request()
    for model in ("m1", "m1", "m2"):
        assert await slots.admission.admit(holder, asking(model)) is None
    assert await slots.in_use() == {"all": 1, "each;model=m2": 1}


async def test_run_again_that_is_refused_holds_nothing() -> None:
    """What the run before held is given back also where the next is refused."""
    slots, holder = Slots(EVERYBODY, EACH_MODEL), request()
    await slots.admission.admit(request(), asking("m2"))
    await slots.admission.admit(holder, asking("m1"))
    assert await slots.admission.admit(holder, asking("m2")) is not None
    assert not holder.is_holding


async def test_each_model_of_a_list_holds_its_own() -> None:
    """Of several models each holds a slot of its own, also in a pool they share; the rest is held once."""
    slots, holder = Slots(EVERYBODY, EACH_MODEL, POOL), request()
    assert await slots.admission.admit(holder, asking("m1", "m2")) is None
    assert await slots.in_use() == {"all": 1, "each;model=m1": 1, "each;model=m2": 1, "pool": 2}
    assert told(holder)["x-ratelimit-pool-remaining-max_parallel_requests"] == "0"
    holder.close()
    assert await slots.in_use() == {}


@pytest.mark.parametrize("models", [("m1", "m2", "m3"), ("m1", "x", "m2", "m3")])
async def test_list_is_admitted_as_a_whole(models: tuple[str, ...]) -> None:
    """Where one model of a list is refused, the slots of all of them are given back."""
    slots, holder = Slots(EVERYBODY, POOL), request()
    refusal = await slots.admission.admit(holder, asking(*models))
    assert refusal is not None
    assert refusal.headers["x-parallel-limit-name"] == "pool"
    assert not holder.is_holding
    assert await slots.in_use() == {}


async def test_same_model_twice_holds_two_slots() -> None:
    """A list that names a model twice has LiteLLM call it twice: each call holds a slot."""
    slots, holder = Slots(POOL), request()
    assert await slots.admission.admit(holder, asking("m1", "m1")) is None
    assert await slots.in_use() == {"pool": 2}


async def test_list_of_models_meets_no_more_limits_than_one_request_may() -> None:
    """The bound on the limits of one request is a bound on them all, however many models it names."""
    slots = Slots(OperatorLimit("each", 1, by=("tag", "model")))
    tags = tuple(Identity(f"t{number}") for number in range(MOST_SCOPES))
    calls = tuple(Call(models=(Identity(f"m{number}"),), tags=tags) for number in range(3))
    holder = request()
    with pytest.raises(TooManyLimitsError):
        await slots.admission.admit(holder, Asked("run", "id", calls))
    assert await slots.in_use() == {}


async def test_too_many_limits_hold_nothing() -> None:
    """A request that stands in more limits than anybody's would holds nothing."""
    slots, holder = Slots(EVERYBODY, OperatorLimit("each", 1, by=("tag",))), request()
    tags = tuple(Identity(f"t{number}") for number in range(MOST_SCOPES))
    with pytest.raises(TooManyLimitsError):
        await slots.admission.admit(holder, Asked("run", "id", (Call(tags=tags),)))
    assert await slots.in_use() == {}
    assert not holder.is_holding


async def test_nested_run_takes_only_what_is_missing() -> None:
    """A call nested in a request takes no slot where the request has one, and leaves the request's alone."""
    slots, holder = Slots(EVERYBODY, EACH_MODEL), request()
    await slots.admission.admit(holder, asking("m1"))
    before = told(holder)
    assert await slots.admission.admit(holder, asking("m1", run="nested")) is None
    assert await slots.admission.admit(holder, asking("m2", "m1", run="other")) is None
    assert await slots.in_use() == {"all": 1, "each;model=m1": 1, "each;model=m2": 1}
    assert told(holder) == before


async def test_refused_nested_run_leaves_the_request_alone() -> None:
    """Where a nested call is refused, the request holds what it held, and its answer says nothing of it."""
    slots, holder = Slots(EVERYBODY, EACH_MODEL), request()
    await slots.admission.admit(request(), asking("m2"))
    await slots.admission.admit(holder, asking("m1"))
    before = told(holder)
    assert await slots.admission.admit(holder, asking("m3", "m2", run="nested")) is not None
    assert await slots.in_use() == {"all": 2, "each;model=m1": 1, "each;model=m2": 1}
    assert told(holder) == before


async def test_nested_runs_are_apart() -> None:
    """A nested call run again gives way to itself, not to another nested call."""
    slots, holder = Slots(EACH_MODEL), request()
    await slots.admission.admit(holder, asking("m1"))
    await slots.admission.admit(holder, asking("m2", run="first"))
    await slots.admission.admit(holder, asking("m3", run="second"))
    await slots.admission.admit(holder, asking("m4", run="second"))
    assert set(await slots.in_use()) == {"each;model=m1", "each;model=m2", "each;model=m4"}


async def test_fallback_takes_the_place_of_the_model_that_failed() -> None:
    """A model that the router falls back to is held instead of the one that failed."""
    slots, holder = Slots(EVERYBODY, EACH_MODEL), request()
    asked = asking("m1")
    await slots.admission.admit(holder, asked)
    (fallback,) = asking("m2").calls
    assert await slots.admission.go_on(holder, asked, fallback, instead=True) is None
    assert await slots.in_use() == {"all": 1, "each;model=m2": 1}
    assert holder.asked is not None
    assert holder.asked.calls == (fallback,)


async def test_model_that_the_router_chooses_is_held_beside_the_one_asked_for() -> None:
    """A model that the router chose for the one asked for, which has not failed, is held beside it."""
    slots, holder = Slots(EVERYBODY, EACH_MODEL), request()
    asked = asking("m1")
    await slots.admission.admit(holder, asked)
    assert await slots.admission.go_on(holder, asked, *asking("m2").calls, instead=False) is None
    assert await slots.in_use() == {"all": 1, "each;model=m1": 1, "each;model=m2": 1}


async def test_full_fallback_of_one_model_leaves_nothing() -> None:
    """Where the fallback is full, the request is refused by it and holds nothing."""
    slots, holder = Slots(EVERYBODY, EACH_MODEL), request()
    await slots.admission.admit(request(), asking("m2"))
    asked = asking("m1")
    await slots.admission.admit(holder, asked)
    refusal = await slots.admission.go_on(holder, asked, *asking("m2").calls, instead=True)
    assert refusal is not None
    assert not holder.is_holding


async def test_fallback_of_a_list_leaves_the_others() -> None:
    """Where several models were asked for, those that may still answer keep their slots."""
    slots, holder = Slots(EVERYBODY, EACH_MODEL), request()
    asked = asking("m1", "m2")
    await slots.admission.admit(holder, asked)

    async def go_on(model: str) -> Refusal | None:
        (call,) = asking(model).calls
        going_on = slots.admission.go_on(holder, asked, call, instead=True)
        return await asyncio.create_task(going_on)  # each model of a list has a task

    assert await go_on("m3") is None
    everything = {"all": 1, **{f"each;model=m{number}": 1 for number in (1, 2, 3)}}
    assert await slots.in_use() == everything
    await slots.admission.admit(request(), asking("m4"))
    assert await go_on("m4") is not None
    assert await slots.in_use() == {**everything, "all": 2, "each;model=m4": 1}
    holder.close()
    assert await slots.in_use() == {"all": 1, "each;model=m4": 1}


async def test_call_that_meets_no_limit_asks_no_store() -> None:
    """Where no limit applies nothing is asked of the store."""

    class Unexpected(MemoryStore):
        async def acquire(self, lease: Lease) -> Answer:
            raise AssertionError(lease)

    holder = request()
    assert await Slots(store=Unexpected(ttl=30)).admission.admit(holder, asking("m1", "m2")) is None
    assert told(holder) == {}


async def test_request_that_has_ended_holds_nothing() -> None:
    """What is admitted for a request that is over is given back at once."""
    slots, holder = Slots(EVERYBODY, EACH_MODEL), request()
    holder.close()
    assert await slots.admission.admit(holder, asking("m1", "m2")) is None
    assert await slots.in_use() == {}


class SlowStore(MemoryStore):
    """Lets others run before it answers."""

    async def acquire(self, lease: Lease) -> Answer:
        """Take slots after a while."""
        await asyncio.sleep(0)
        return await super().acquire(lease)


@pytest.mark.parametrize("turns", range(8))
async def test_request_cancelled_on_its_way_in_holds_nothing(turns: int) -> None:
    """Wherever a request for several models is cancelled, nothing of it is held when it has ended."""
    slots, holder = Slots(EVERYBODY, EACH_MODEL, store=SlowStore(ttl=30)), request()
    task = asyncio.create_task(slots.admission.admit(holder, asking("m1", "m2", "m3")))
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    holder.close()
    assert await slots.in_use() == {}
