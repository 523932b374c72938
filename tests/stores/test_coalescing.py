"""One call to Redis is under way at a time, and the next takes along what came meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from litellm_parallel_limits.limits import Admitted, Answer, Lease
from litellm_parallel_limits.stores.shared import SharedStore
from tests.samples import lease, limit
from tests.stores.asking import admitted, has_room, holders, turns
from tests.stores.storages import Connect, in_redis, redis_store
from tests.stores.wire import Wire

MOST_SLOTS = 32


@pytest.fixture
def store(wire: Wire) -> SharedStore:
    """Return the store at the near end of the wire."""
    return redis_store(wire)


def ask(store: SharedStore, *leases: Lease) -> list[asyncio.Task[Answer]]:
    """Ask for leases, all at once."""
    return [asyncio.create_task(store.acquire(wanted)) for wanted in leases]


def slots(call: Sequence[str | int]) -> int:
    """Return how many slots a call is about."""
    return sum(line.startswith("lease-") for arg in call for line in str(arg).splitlines())


async def one_under_way(store: SharedStore, wire: Wire) -> asyncio.Task[Answer]:
    """Return a request whose call is held on its way."""
    wire.there.clear()
    (asking,) = ask(store, lease(limit("other", capacity=9)))
    await wire.called(1)
    return asking


async def test_lone_request_goes_at_once(store: SharedStore, wire: Wire) -> None:
    """A request that comes alone costs one call, and waits for no other."""
    await admitted(store, lease(limit("user"), limit("team")))
    assert len(wire.calls) == 1


async def test_arrivals_gather_while_a_call_is_under_way(store: SharedStore, wire: Wire) -> None:
    """However many come while one call is under way, they go together in the next."""
    first = await one_under_way(store, wire)
    gathered = ask(store, *(lease(limit(capacity=99)) for _ in range(50)))
    await turns(3)
    assert len(wire.calls) == 1
    wire.there.set()
    assert all(isinstance(answer, Admitted) for answer in await asyncio.gather(first, *gathered))
    assert len(wire.calls) == 2


async def test_crowd_goes_in_bounded_calls(store: SharedStore, wire: Wire) -> None:
    """No call keeps Redis busy with more than 32 slots to take, each in a scope of its own."""
    first = await one_under_way(store, wire)
    crowd = ask(store, *(lease(limit(f"limit{number}")) for number in range(2 * MOST_SLOTS + 1)))
    await turns(1)
    wire.there.set()
    assert all(isinstance(answer, Admitted) for answer in await asyncio.gather(first, *crowd))
    assert len(wire.calls) == 4


async def test_slots_of_the_same_scope_are_a_quarter_of_the_work(store: SharedStore, wire: Wire) -> None:
    """So a crowd that meets the same limit goes in fewer calls."""
    first = await one_under_way(store, wire)
    crowd = ask(store, *(lease(limit(capacity=9_999)) for _ in range(4 * MOST_SLOTS - 3)))
    await turns(1)
    wire.there.set()
    assert all(isinstance(answer, Admitted) for answer in await asyncio.gather(first, *crowd))
    assert len(wire.calls) == 2


async def test_gathered_requests_are_admitted_in_order(store: SharedStore, wire: Wire) -> None:
    """Whoever came first has the slot."""
    first = await one_under_way(store, wire)
    crowd = ask(store, *(lease(limit(capacity=2)) for _ in range(4)))
    await turns(1)
    wire.there.set()
    await first
    answers = [isinstance(answer, Admitted) for answer in await asyncio.gather(*crowd)]
    assert answers == [True, True, False, False]


async def test_releases_go_first_in_the_same_call(store: SharedStore, wire: Wire) -> None:
    """A slot given back while a call is under way is there for a request of the next call."""
    held = await admitted(store, lease(limit()))
    wire.calls.clear()
    first = await one_under_way(store, wire)
    (waiting,) = ask(store, lease(limit()))
    await turns(1)
    store.release(held)
    wire.there.set()
    assert isinstance(await waiting, Admitted)
    await first
    assert len(wire.calls) == 2


async def test_many_at_once_are_few_calls(connect_redis: Connect) -> None:
    """Redis counts far fewer calls than requests where many come at once."""
    async with in_redis(connect_redis) as storage:
        store = storage.store()
        await store.renew([])
        await storage.client.config_resetstat()
        for _ in range(10):
            for asked in await asyncio.gather(*ask(store, *(lease(limit(capacity=99)) for _ in range(50)))):
                assert isinstance(asked, Admitted)
                store.release(asked.lease)
        assert (await storage.client.info("commandstats"))["cmdstat_evalsha"]["calls"] <= 20


async def test_many_renewals_go_in_chunks(store: SharedStore, wire: Wire) -> None:
    """320 slots are renewed by ten calls, none of which has more than 32."""
    held = [lease(limit(f"limit{number}")) for number in range(10 * MOST_SLOTS)]
    await store.renew(held)
    assert [slots(call) for call in wire.calls] == [MOST_SLOTS] * 10
    assert set().union(*(await holders(store)).values()) == {lease.id for lease in held}


async def test_many_releases_go_in_chunks(store: SharedStore, wire: Wire) -> None:
    """However many releases have gathered, no call has more than 32 slots to free."""
    held = [lease(limit(f"limit{number}")) for number in range(10 * MOST_SLOTS)]
    await store.renew(held)
    wire.calls.clear()
    for one in held:
        store.release(one)
    assert await holders(store) == {}
    assert max(slots(call) for call in wire.calls) == MOST_SLOTS


async def test_who_is_new_does_not_wait_for_a_heartbeat(store: SharedStore, wire: Wire) -> None:
    """While many leases are renewed, call by call, others are admitted beside them."""
    held = [lease(limit(f"limit{number}")) for number in range(10 * MOST_SLOTS)]
    await store.renew(held)
    wire.calls.clear()
    renewing = asyncio.create_task(store.renew(held))
    await wire.called(1)
    (asking,) = ask(store, lease(limit("other")))
    assert isinstance(await asking, Admitted)
    assert len(wire.calls) < 5
    await renewing


async def test_request_that_leaves_unsent_costs_no_call(store: SharedStore, wire: Wire) -> None:
    """A request cancelled before its call was made is forgotten."""
    first = await one_under_way(store, wire)
    (leaving,) = ask(store, lease(limit()))
    await turns(1)
    leaving.cancel()
    wire.there.set()
    await asyncio.gather(first, leaving, return_exceptions=True)
    assert len(wire.calls) == 1
    assert await has_room(store, limit())


async def test_request_that_leaves_harms_none_of_its_call(store: SharedStore, wire: Wire) -> None:
    """Those who share a call with a request that is cancelled have their answers."""
    wire.there.clear()
    leaving, staying = ask(store, lease(limit(capacity=2)), lease(limit(capacity=2)))
    await wire.called(1)
    leaving.cancel()
    wire.there.set()
    assert isinstance(await staying, Admitted)
    assert await has_room(store, limit(capacity=2))


@pytest.mark.parametrize("way", ["there", "back"])
async def test_request_that_leaves_while_its_call_is_under_way(
    store: SharedStore, wire: Wire, way: str
) -> None:
    """What is granted to a request that has left goes back with the next call."""
    gate: asyncio.Event = getattr(wire, way)
    gate.clear()
    (leaving,) = ask(store, lease(limit()))
    await wire.called(1)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    gate.set()
    assert await has_room(store, limit())
    assert await holders(store) == {}


@pytest.mark.parametrize("number", range(8))
async def test_request_that_leaves_as_its_answer_comes(store: SharedStore, wire: Wire, number: int) -> None:
    """A request cancelled any number of turns after the reply came holds nothing."""
    replied = asyncio.Event()
    wire.passing = replied.set
    wanted = lease(limit())
    (leaving,) = ask(store, wanted)
    await replied.wait()
    await turns(number)
    if not leaving.cancel():
        store.release(wanted)
    await asyncio.gather(leaving, return_exceptions=True)
    assert await has_room(store, limit())
    assert await holders(store) == {}


async def test_snapshot_waits_for_the_releases_before_it(store: SharedStore, wire: Wire) -> None:
    """A snapshot shows nothing that was released before, whichever way to Redis is the quicker one."""
    held = await admitted(store, lease(limit()))
    wire.calls.clear()
    first = await one_under_way(store, wire)
    store.release(held)
    asking = asyncio.create_task(store.snapshot())
    await turns(1)
    wire.passing = wire.there.clear  # what follows the call under way is slow
    wire.there.set()
    await first
    await turns(50)
    wire.there.set()
    assert "team" not in {holding.scope.limit for holding in (await asking).holdings}
