"""One worker's side of a shared store makes the best of a way on which calls and replies are lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from litellm_parallel_limits.errors import StoreError
from litellm_parallel_limits.limits import Admitted, Answer, Lease, Refused
from litellm_parallel_limits.stores import shared
from litellm_parallel_limits.stores.exchange import Backend, Exchange, Reply
from litellm_parallel_limits.stores.shared import SharedStore
from tests.rig.polling import until
from tests.samples import lease, limit, observed
from tests.stores.asking import admitted, answers, has_room, holders, turns
from tests.stores.road import Mishap, Road, arrived, call_lost, call_silent, reply_lost, reply_silent
from tests.stores.storages import PATIENCE, SharedStorage, shared_store

DEADLINE = 0.05

LOST = [call_lost, reply_lost]
SILENT = [call_silent, reply_silent]


@pytest.fixture
def road(shared_storage: SharedStorage) -> Road:
    """Return the way to each backend."""
    return Road(shared_storage.backend())


@pytest.fixture
def patient(road: Road) -> SharedStore:
    """Return a store at the near end of the way that does not give up."""
    return shared_store(road, "patient")


@pytest.fixture
def hasty(road: Road) -> SharedStore:
    """Return a store at the near end of the way that gives up soon."""
    return shared_store(road, "hasty", timeout=DEADLINE)


@pytest.fixture
def onlooker(shared_storage: SharedStorage) -> SharedStore:
    """Return another worker's store, with a way of its own."""
    return shared_storage.store("onlooker")


def named(leases: Sequence[Lease]) -> list[str]:
    """Return the ids of leases."""
    return [lease.id for lease in leases]


def asked(call: Exchange) -> list[str]:
    """Return the ids of the leases that a call asks for."""
    return named([ask.lease for ask in call.asks])


def released(call: Exchange) -> list[str]:
    """Return the ids of the leases that a call releases."""
    return named([ask.lease for ask in call.releases])


async def answering(store: SharedStore) -> None:
    """Return once a store answers again: the call that failed last may not be given up yet."""
    await until(lambda: answers(store), PATIENCE, lambda: "the store does not answer")


@pytest.mark.parametrize("lost", LOST)
async def test_call_that_fails_is_tried_again(patient: SharedStore, road: Road, lost: Mishap) -> None:
    """A call or a reply that is lost, time and again, costs a request nothing but time."""
    road.mishaps += [lost] * 3
    held = lease(limit(capacity=9))
    answer = await patient.acquire(held)
    assert isinstance(answer, Admitted)
    assert answer.in_flight == (1,)
    assert [call.number for call in road.calls] == [1, 2, 3, 4]
    assert await holders(patient) == {"team": {held.id}}


@pytest.mark.parametrize("lost", LOST)
async def test_last_slot_is_had_by_who_asks_again(patient: SharedStore, road: Road, lost: Mishap) -> None:
    """A request is not refused for the slot that it was given in a reply that never came."""
    road.mishaps += [lost]
    await admitted(patient, lease(limit()))


@pytest.mark.parametrize("lost", LOST)
async def test_renewal_that_fails_is_tried_again(patient: SharedStore, road: Road, lost: Mishap) -> None:
    """A renewal of many leases loses none of them to a call that fails, whichever it is."""
    held = [lease(limit(capacity=9_999)) for _ in range(1_300)]
    road.mishaps += [arrived, lost]
    await patient.renew(held)
    assert await holders(patient) == {"team": set(named(held))}


async def test_telling_of_a_release_takes_no_call_of_its_own(
    patient: SharedStore, onlooker: SharedStore, road: Road
) -> None:
    """Who is told that a slot is free again can be sure that it is, for one call in all."""
    held = lease(limit())
    await admitted(patient, held)
    patient.release(held)
    await patient.told()
    assert [len(call.releases) for call in road.calls] == [0, 1]
    await admitted(onlooker, lease(limit()))


@pytest.mark.parametrize("lost", LOST)
async def test_release_that_fails_is_tried_again(patient: SharedStore, road: Road, lost: Mishap) -> None:
    """What is given back in a call that fails is free before anything is asked for later."""
    held = await admitted(patient, lease(limit()))
    road.mishaps += [lost]
    patient.release(held)
    await admitted(patient, lease(limit()))


async def test_order_outlives_a_failure(patient: SharedStore, road: Road) -> None:
    """Who asked in a call that failed comes before who asked after it."""
    road.mishaps += [call_lost]
    first = asyncio.create_task(patient.acquire(lease(limit())))
    await road.called(1)
    second = asyncio.create_task(patient.acquire(lease(limit())))
    assert [type(answer) for answer in await asyncio.gather(first, second)] == [Admitted, Refused]


async def test_who_asks_again_and_is_refused_holds_nothing(
    patient: SharedStore, road: Road, onlooker: SharedStore
) -> None:
    """Where others, with greater numbers, came between a lost reply and the next try, nothing is kept."""
    other = lease(limit(capacity=2))
    road.mishaps += [_reply_lost_while(onlooker.acquire(other))]
    assert isinstance(await patient.acquire(lease(limit("user"), limit(capacity=1))), Refused)
    assert await holders(onlooker) == {"team": {other.id}}


async def test_who_asks_again_and_is_apart_is_there_once(
    patient: SharedStore, road: Road, onlooker: SharedStore
) -> None:
    """A lease that is kept apart at the second try only has no other slot from the first."""
    road.mishaps += [_reply_lost_while(onlooker.acquire(lease(observed(capacity=2))))]
    assert (await admitted(patient, lease(observed(capacity=1)))).apart
    assert len((await onlooker.snapshot()).holdings) == 2
    answer = await onlooker.acquire(lease(observed(capacity=9)))
    assert isinstance(answer, Admitted)
    assert answer.in_flight == (2,)


def _reply_lost_while(meanwhile: Awaitable[Answer]) -> Mishap:
    async def mishap(backend: Backend, exchange: Exchange) -> Reply:
        await backend.exchange(exchange)
        await meanwhile
        raise ConnectionError

    return mishap


@pytest.mark.parametrize("mishap", [*LOST, *SILENT])
async def test_deadline_is_kept(hasty: SharedStore, road: Road, mishap: Mishap) -> None:
    """A way that fails at once, time and again, and one that is silent are an error in time."""
    road.usual = mishap
    for ask in (hasty.acquire(lease(limit())), hasty.renew([lease(limit())]), hasty.snapshot()):
        with pytest.raises(StoreError):
            await asyncio.wait_for(ask, 20 * DEADLINE)


async def test_failure_is_tried_again_until_the_deadline(
    patient: SharedStore, road: Road, shared_storage: SharedStorage
) -> None:
    """A call that fails a second after it was made is made once for each second that anyone waits."""

    async def lost_after_a_second(backend: Backend, exchange: Exchange) -> Reply:
        await shared_storage.age(1)
        return await call_lost(backend, exchange)

    road.usual = lost_after_a_second
    with pytest.raises(StoreError):
        await patient.acquire(lease(limit()))
    assert len([call for call in road.calls if call.asks]) == PATIENCE


async def test_old_failure_shortens_no_deadline(
    patient: SharedStore, road: Road, shared_storage: SharedStorage
) -> None:
    """Who asks long after a release failed has all of its time, in which a call that fails is tried again."""
    held = await admitted(patient, lease(limit()))
    road.mishaps += [call_lost] * 2
    patient.release(held)
    await road.called(2)
    await turns(5)
    await shared_storage.age(PATIENCE + 1)
    await admitted(patient, lease(limit()))


@pytest.mark.parametrize("silent", SILENT)
async def test_renewal_of_many_waits_once(hasty: SharedStore, road: Road, silent: Mishap) -> None:
    """However many calls a renewal needs, it fails with the first one that is not answered in time."""
    road.usual = silent
    with pytest.raises(StoreError):
        await hasty.renew([lease(limit(capacity=9_999)) for _ in range(1_300)])
    assert len(road.calls) == 1


@pytest.mark.parametrize("mishap", [*LOST, *SILENT])
async def test_what_was_given_up_is_given_back(hasty: SharedStore, road: Road, mishap: Mishap) -> None:
    """Whoever was told that there is no answer has no slot when the way is open again."""
    road.usual = mishap
    given_up = lease(limit())
    with pytest.raises(StoreError):
        await hasty.acquire(given_up)
    road.usual = arrived
    await answering(hasty)
    assert await holders(hasty) == {}
    assert await has_room(hasty, limit())
    assert any(given_up.id in released(call) for call in road.calls)
    assert not any(call.asks for call in road.calls[-3:] if given_up.id in asked(call))


class Held:
    """A mishap that a test lets happen when it wants: the call `is_under_way`, and is lost on `go`."""

    def __init__(self, mishap: Mishap) -> None:
        self.go = asyncio.Event()
        self._mishap = mishap

    async def __call__(self, backend: Backend, exchange: Exchange) -> Reply:
        """Wait, and let it happen."""
        await self.go.wait()
        return await self._mishap(backend, exchange)


@pytest.mark.parametrize("lost", LOST)
@pytest.mark.parametrize("is_late", [False, True])
async def test_who_leaves_is_not_asked_for_again(
    patient: SharedStore, road: Road, lost: Mishap, *, is_late: bool
) -> None:
    """Who leaves while the call fails, or before it is tried again, is given back and not admitted again."""
    held = Held(lost)
    road.mishaps += [held]
    leaving = asyncio.create_task(patient.acquire(wanted := lease(limit())))
    await road.called(1)
    await _in_turn(leaving.cancel, held.go.set, is_late=is_late)
    assert await holders(patient) == {}
    assert [asked(call) for call in road.calls[1:]] == [[]] * len(road.calls[1:])
    assert wanted.id in released(road.calls[1])
    await asyncio.gather(leaving, return_exceptions=True)


@pytest.mark.parametrize("lost", LOST)
@pytest.mark.parametrize("is_late", [False, True])
async def test_what_is_released_is_not_renewed_again(
    patient: SharedStore, road: Road, lost: Mishap, *, is_late: bool
) -> None:
    """What is released while its renewal fails, or before that is tried again, is not brought back."""
    released, kept = [await admitted(patient, lease(limit(capacity=2))) for _ in range(2)]
    held = Held(lost)
    road.mishaps += [held]
    renewal = asyncio.create_task(patient.renew([released, kept]))
    await road.called(3)
    await _in_turn(lambda: patient.release(released), held.go.set, is_late=is_late)
    await renewal
    assert await holders(patient) == {"team": {kept.id}}
    assert named(road.calls[3].renewals) == [kept.id]
    assert [ask.lease.id for ask in road.calls[3].releases] == [released.id]


async def _in_turn(first: Callable[[], object], second: Callable[[], object], *, is_late: bool) -> None:
    """Do two things, the first one later where it `is_late`, each after what the other leads to."""
    for do in (second, first) if is_late else (first, second):
        do()
        await turns(5)


@pytest.mark.parametrize("lost", LOST)
async def test_releases_outlive_an_outage(
    hasty: SharedStore, road: Road, onlooker: SharedStore, lost: Mishap, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that was given back in an outage is free when it is over, though nobody asks for anything."""
    monkeypatch.setattr(shared, "RETRY_SECONDS", 0.01)
    held = [await admitted(hasty, lease(limit(capacity=600))) for _ in range(3)]
    await hasty.renew(many := [lease(limit(capacity=600)) for _ in range(520)])
    road.usual = lost
    for one in held + many:
        hasty.release(one)
    calls = len(road.calls)
    await road.called(calls + 4)
    road.usual = arrived
    await until(lambda: _is_empty(onlooker), PATIENCE, lambda: "something is held")


async def _is_empty(store: SharedStore) -> bool:
    return not await holders(store)


async def test_error_names_no_secrets(hasty: SharedStore, road: Road) -> None:
    """What a store says of a failure is its kind, and nothing of what the cause says; that is attached."""

    async def fail(backend: Backend, exchange: Exchange) -> Reply:
        raise ConnectionError("invalid password: secret")

    road.usual = fail
    with pytest.raises(StoreError) as failure:
        await hasty.acquire(lease(limit()))
    assert str(failure.value) == f"{road.name} failed: ConnectionError"
    assert isinstance(failure.value.__cause__, ConnectionError)


async def test_time_is_the_backends(patient: SharedStore, onlooker: SharedStore) -> None:
    """What a worker says the time is, before it has called and after, is what another hears."""
    guessed = patient.now_ms()
    await patient.renew([])
    told = (await onlooker.snapshot()).now_ms
    assert abs(guessed - told) < PATIENCE * 1000
    assert abs(patient.now_ms() - told) < PATIENCE * 1000
