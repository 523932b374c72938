"""Every store lets who finds a limit full wait in line, and gives each slot to the one whose turn it is."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from litellm_parallel_limits.limits import Admitted, Lease, Limit, Patience, Refused, Wait, Waiting
from litellm_parallel_limits.stores import Store
from litellm_parallel_limits.stores.order import MOST_PASSES
from tests.samples import lease, limit
from tests.stores.asking import admitted, holders, renewed
from tests.stores.storages import TTL, SharedStorage, Storage

PATIENT = Patience()


def awaited(name: str = "team", capacity: int = 1, *, most: int = 100, flow: str = "") -> Limit:
    """Return a limit that may be waited for."""
    return limit(name, capacity, wait=Wait(60, most, flow))


async def waiting(store: Store, wanted: Lease, patience: Patience = PATIENT) -> Waiting:
    """Return the place of a lease that has to wait."""
    place = await store.wait(wanted, patience)
    assert isinstance(place, Waiting), place
    return place


async def turn(place: Waiting) -> Lease:
    """Return the lease as it is granted when its turn comes."""
    return (await asyncio.wait_for(place.turn, 5)).lease


async def order(store: Store, held: Lease, places: Sequence[Waiting], names: Sequence[str]) -> str:
    """Return the names of those that wait in the order in which they are given a slot that goes round."""
    told = ""
    left = dict(zip(names, places, strict=True))
    while left:
        store.release(held)
        await asyncio.wait(
            {place.turn for place in left.values()}, timeout=5, return_when=asyncio.FIRST_COMPLETED
        )
        (name,) = [name for name, place in left.items() if place.turn.done()]
        held = left.pop(name).turn.result().lease
        told += name
    store.release(held)
    return told


async def test_who_finds_room_does_not_wait(store: Store) -> None:
    """Patience costs nobody anything where there is room."""
    answer = await store.wait(lease(awaited()), PATIENT)
    assert isinstance(answer, Admitted)
    assert answer.in_flight == (1,)


async def test_who_waits_is_told_for_what(store: Store) -> None:
    """A place in line says which limit is full, how many hold it, and how many waited before."""
    full = awaited()
    await admitted(store, lease(full))
    places = [await waiting(store, lease(full)) for _ in range(2)]
    assert [(place.limit, place.in_flight, place.waiting) for place in places] == [(full, 1, 0), (full, 1, 1)]


async def test_who_waits_holds_nothing(store: Store) -> None:
    """Neither in the limit that is full nor in others."""
    full, other = awaited(), awaited("other")
    held = await admitted(store, lease(full))
    await waiting(store, lease(other, full))
    assert await holders(store) == {"team": {held.id}}


async def test_a_slot_that_comes_free_goes_to_who_waits(store: Store) -> None:
    """It is admitted, with all of its limits, and holds them like any other."""
    full, other = awaited(), awaited("other")
    held = await admitted(store, lease(full))
    place = await waiting(store, lease(other, full))
    store.release(held)
    granted = await turn(place)
    assert await holders(store) == {"team": {granted.id}, "other": {granted.id}}
    assert place.turn.result().in_flight == (1, 1)
    store.release(granted)
    assert await holders(store) == {}


async def test_first_come_first_served(store: Store) -> None:
    """Those of one flow go in the order in which they came."""
    full = awaited()
    held = await admitted(store, lease(full))
    places = [await waiting(store, lease(full)) for _ in range(5)]
    assert await order(store, held, places, "abcde") == "abcde"


async def test_flows_take_turns(store: Store) -> None:
    """Who comes alone does not wait behind all the requests of another."""
    full = {name: awaited(flow=name) for name in "ab"}
    held = await admitted(store, lease(full["a"]))
    places = [await waiting(store, lease(full[name])) for name in "aaaabb"]
    assert await order(store, held, places, "123456") == "152634"


async def test_flows_take_turns_whatever_else_they_meet(store: Store) -> None:
    """A flow has no more turns for having more limits of its own."""
    full = {name: awaited(flow=name) for name in "ab"}
    held = await admitted(store, lease(full["a"]))
    own = [limit(f"own-{number}", 9) for number in range(3)]
    places = [await waiting(store, lease(full["a"], one)) for one in own]
    places += [await waiting(store, lease(full["b"])) for _ in range(2)]
    assert await order(store, held, places, "12345") == "14253"


async def test_lower_priority_goes_first(store: Store) -> None:
    """Whoever came first."""
    full = awaited()
    held = await admitted(store, lease(full))
    places = [await waiting(store, lease(full), Patience(priority)) for priority in (10, 10, 0, 5)]
    assert await order(store, held, places, "abcd") == "cdab"


async def test_who_has_waited_long_goes_first(store: Store) -> None:
    """Five seconds are worth a step of priority: nobody starves."""
    full = awaited()
    held = await admitted(store, lease(full))
    places = [
        await waiting(store, lease(full), Patience(0)),
        await waiting(store, lease(full), Patience(1, waited=4)),
        await waiting(store, lease(full), Patience(1, waited=6)),
    ]
    assert await order(store, held, places, "abc") == "cab"


async def test_no_more_may_wait_than_may(store: Store) -> None:
    """One more is refused, and told so."""
    full = awaited(most=2)
    await admitted(store, lease(full))
    for _ in range(2):
        await waiting(store, lease(full))
    assert await store.wait(lease(full), PATIENT) == Refused(full, 1, "queue_full", 2)


async def test_who_leaves_makes_room_in_line(store: Store) -> None:
    """Another may wait in its place."""
    full = awaited(most=1)
    await admitted(store, lease(full))
    place = await waiting(store, lease(full))
    store.release(place.lease)
    await waiting(store, lease(full))


async def test_who_left_is_given_nothing(store: Store) -> None:
    """The next in line is."""
    full = awaited()
    held = await admitted(store, lease(full))
    places = [await waiting(store, lease(full)) for _ in range(3)]
    store.release(places[0].lease)
    store.release(held)
    granted = await turn(places[1])
    assert await holders(store) == {"team": {granted.id}}


async def test_slot_of_one_that_just_left_goes_to_the_next(store: Store) -> None:
    """Who is granted a slot and leaves without looking gives it to the next."""
    full = awaited()
    held = await admitted(store, lease(full))
    places = [await waiting(store, lease(full)) for _ in range(2)]
    store.release(held)
    store.release(places[0].lease)
    granted = await turn(places[1])
    assert await holders(store) == {"team": {granted.id}}


async def test_limits_that_nobody_may_wait_for_refuse(store: Store) -> None:
    """Even where another that is full may be waited for."""
    full, strict = awaited(), limit("strict")
    await admitted(store, lease(full, strict))
    answer = await store.wait(lease(full, strict), PATIENT)
    assert isinstance(answer, Refused)
    assert (answer.limit, answer.reason) == (strict, "limit")


async def test_nobody_waits_for_a_limit_of_zero(store: Store) -> None:
    """No slot of it ever comes free."""
    blocked = awaited(capacity=0)
    answer = await store.wait(lease(blocked), PATIENT)
    assert isinstance(answer, Refused)
    assert answer.reason == "limit"


async def test_who_waits_for_one_limit_holds_up_nobody_in_another(store: Store) -> None:
    """A slot that the first in line lacks another for goes to who can use it."""
    full, shared = awaited("full"), awaited("shared", 2)
    await admitted(store, lease(full))
    await waiting(store, lease(full, shared))
    for _ in range(2):
        await admitted(store, lease(shared))


async def test_who_lacks_another_slot_waits_there(store: Store) -> None:
    """It keeps its turn, and is admitted when the other comes free."""
    one, two = awaited("one"), awaited("two")
    first = await admitted(store, lease(one))
    second = await admitted(store, lease(two))
    place = await waiting(store, lease(one, two))
    store.release(first)
    assert await holders(store) == {"two": {second.id}}
    store.release(second)
    granted = await turn(place)
    assert await holders(store) == {"one": {granted.id}, "two": {granted.id}}


async def test_who_has_a_lower_number_is_passed_over(store: Store) -> None:
    """It waits for its own number of the scope, others for theirs."""
    low, high = awaited(capacity=1), awaited(capacity=2)
    held = [await admitted(store, lease(high)) for _ in range(2)]
    passed, goes = await waiting(store, lease(low)), await waiting(store, lease(high))
    store.release(held[0])
    granted = await turn(goes)
    store.release(held[1])
    store.release(granted)
    await turn(passed)


async def test_nobody_with_many_limits_starves(store: Store) -> None:
    """Who has missed eight turns for want of a slot elsewhere is next in both, whoever comes."""
    one, two = awaited("one"), awaited("two")
    held = {"one": await admitted(store, lease(one)), "two": await admitted(store, lease(two))}
    place = await waiting(store, lease(one, two))
    for number in range(MOST_PASSES - 1):
        name, wanted = (("one", one), ("two", two))[number % 2]
        store.release(held[name])
        held[name] = await admitted(store, lease(wanted))
    store.release(held["two"])
    assert isinstance(await store.acquire(lease(two)), Refused)
    store.release(held["one"])
    await turn(place)
    store.release(place.turn.result().lease)
    await admitted(store, lease(one, two))


async def test_limits_kept_free_for_one_that_leaves_are_open_again(store: Store) -> None:
    """Nobody waits for nobody."""
    one, two = awaited("one"), awaited("two")
    held = {"one": await admitted(store, lease(one)), "two": await admitted(store, lease(two))}
    place = await waiting(store, lease(one, two))
    for number in range(MOST_PASSES - 1):
        name, wanted = (("one", one), ("two", two))[number % 2]
        store.release(held[name])
        held[name] = await admitted(store, lease(wanted))
    store.release(held["two"])
    behind = await waiting(store, lease(two))
    store.release(place.lease)
    await turn(behind)


async def test_slots_of_the_dead_go_to_who_waits(storage: Storage) -> None:
    """A lease that lapses frees its slots like one that is released."""
    store = storage.store()
    full = awaited()
    await admitted(store, lease(full))
    place = await waiting(store, lease(full))
    await storage.age(TTL / 2)
    await store.renew([])
    await storage.age(TTL / 2 + 1)
    await store.renew([])
    await turn(place)


async def test_freed_slots_go_to_who_waits(store: Store) -> None:
    """An admin's order frees a slot like a release."""
    full = awaited()
    held = await admitted(store, lease(full))
    place = await waiting(store, lease(full))
    assert await store.free(lease=held.id) == 1
    await store.renew([])
    await turn(place)


async def test_snapshot_tells_how_many_wait(store: Store) -> None:
    """For each scope in which something is in flight."""
    full, other = awaited(), limit("other")
    await admitted(store, lease(full, other))
    for _ in range(3):
        await waiting(store, lease(full))
    found = await store.snapshot()
    assert {scope.limit: number for scope, number in found.waiting.items() if number} == {"team": 3}


async def test_workers_wait_in_one_line(shared_storage: SharedStorage) -> None:
    """The order is the same as if all had come to one worker, and each worker is told of its own."""
    stores = [shared_storage.store(f"w{number}") for number in range(3)]
    for store in stores:
        await renewed(store)
    full = awaited()
    held = await admitted(stores[0], lease(full, worker="w0"))
    places = []
    for number in range(6):
        worker = number % 3
        places.append(await waiting(stores[worker], lease(full, worker=f"w{worker}")))
    told, holder = "", 0
    for number, place in enumerate(places):
        stores[holder].release(held)
        held, holder = await turn(place), number % 3
        told += str([other.turn.done() for other in places].count(True))
    assert told == "123456"


async def test_who_waits_in_a_dead_worker_is_given_nothing(shared_storage: SharedStorage) -> None:
    """A slot goes to the next of a worker that lives, and nobody counts those of the dead."""
    living, dead = shared_storage.store("living"), shared_storage.store("dead")
    for store in (living, dead):
        await renewed(store)
    full = awaited(most=1)
    held = await admitted(living, lease(full, worker="living"))
    await waiting(dead, lease(full, worker="dead"))
    for _ in range(3):
        await shared_storage.age(TTL / 2)
        await living.renew([held])
    place = await waiting(living, lease(full, worker="living"))
    living.release(held)
    await turn(place)


async def test_nothing_is_left_when_nobody_waits(shared_storage: SharedStorage) -> None:
    """Whoever came and went."""
    store = shared_storage.store()
    full = awaited()
    held = await admitted(store, lease(full))
    places = [await waiting(store, lease(full), Patience(number)) for number in range(3)]
    store.release(places[1].lease)
    store.release(held)
    store.release(await turn(places[0]))
    store.release(await turn(places[2]))
    assert await shared_storage.lines() == set()
