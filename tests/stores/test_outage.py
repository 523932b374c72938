"""A Redis that does not answer costs a bounded time, and leaves nothing held."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace

import pytest

from litellm_parallel_limits.errors import StoreError
from litellm_parallel_limits.limits import Admitted
from litellm_parallel_limits.stores import shared
from litellm_parallel_limits.stores.shared import MOST_SLOTS, SharedStore
from tests.clock import Clock
from tests.rig.polling import until
from tests.samples import lease, limit
from tests.stores.asking import admitted, answers, has_room, holders, turns
from tests.stores.storages import PATIENCE, TTL, redis_store
from tests.stores.wire import Wire

DEADLINE = 0.02


@pytest.fixture
def hasty(wire: Wire) -> SharedStore:
    """Return a store that gives up soon."""
    return redis_store(wire, "hasty", timeout=DEADLINE)


@pytest.fixture
def patient(wire: Wire) -> SharedStore:
    """Return a store that does not give up."""
    return redis_store(wire, "patient", timeout=PATIENCE)


@pytest.fixture
def onlooker(wire: Wire) -> SharedStore:
    """Return another worker's store, with a way of its own to the same Redis."""
    return redis_store(wire.client, "onlooker", timeout=PATIENCE)


async def answering(store: SharedStore) -> None:
    """Return once a store answers again: the call that failed last may not be given up yet."""
    await until(lambda: answers(store), PATIENCE, lambda: "the store does not answer")


@pytest.mark.parametrize("way", ["there", "back"])
async def test_silence_is_an_error_in_time(hasty: SharedStore, wire: Wire, way: str) -> None:
    """Nobody waits much longer than the time-out, however many calls the requests would need."""
    getattr(wire, way).clear()
    asking = [hasty.acquire(lease(limit())) for _ in range(10 * MOST_SLOTS)]
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert {type(answer) for answer in answers} == {StoreError}
    assert len(wire.calls) < 5


@pytest.mark.parametrize("way", ["there", "back"])
async def test_silence_fails_renewals_in_time(hasty: SharedStore, wire: Wire, way: str) -> None:
    """A renewal or a snapshot does not wait much longer than the time-out either."""
    getattr(wire, way).clear()
    for ask in (hasty.renew([lease(limit())]), hasty.snapshot()):
        with pytest.raises(StoreError):
            await asyncio.wait_for(ask, 20 * DEADLINE)


@pytest.mark.parametrize("way", ["there", "back"])
async def test_silence_leaves_nothing_held(hasty: SharedStore, wire: Wire, way: str) -> None:
    """What Redis granted in a reply that never came is given back with the next call."""
    getattr(wire, way).clear()
    with pytest.raises(StoreError):
        await hasty.acquire(lease(limit()))
    getattr(wire, way).set()
    await answering(hasty)
    assert await has_room(hasty, limit())
    assert await holders(hasty) == {}


async def test_failure_is_an_error_with_its_cause(hasty: SharedStore, wire: Wire) -> None:
    """A failing client ends in our error, with its own error attached."""
    wire.cut = True
    for ask in (hasty.acquire(lease(limit())), hasty.renew([])):
        with pytest.raises(StoreError) as failure:
            await ask
        assert isinstance(failure.value.__cause__, ConnectionError)


async def test_failure_is_over_when_redis_is_back(hasty: SharedStore, wire: Wire) -> None:
    """After an outage requests are served again."""
    wire.cut = True
    with pytest.raises(StoreError):
        await hasty.acquire(lease(limit()))
    wire.cut = False
    await answering(hasty)
    await admitted(hasty, lease(limit()))


async def test_failed_release_goes_with_the_next_call(patient: SharedStore, wire: Wire) -> None:
    """A release that Redis did not hear of takes effect before what is asked for when it is back."""
    held = await admitted(patient, lease(limit()))
    wire.cut = True
    patient.release(held)
    await wire.called(2)
    await turns(3)
    wire.cut = False
    await admitted(patient, lease(limit()))


async def test_failed_release_is_sent_again(
    patient: SharedStore, onlooker: SharedStore, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A release that Redis did not hear of is told again, also where nobody asks for anything."""
    monkeypatch.setattr(shared, "RETRY_SECONDS", 0.001)
    held = await admitted(patient, lease(limit()))
    wire.cut = True
    patient.release(held)
    await wire.called(4)
    wire.cut = False
    while await holders(onlooker):
        await turns(1)


async def test_failed_release_is_forgotten_when_the_lease_has_lapsed(
    patient: SharedStore, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A release is told again until its lease has lapsed, and no longer: an outage gathers no more."""
    clock = Clock()
    monkeypatch.setattr(shared, "time", SimpleNamespace(monotonic=clock))
    held = await admitted(patient, lease(limit()))
    wire.cut = True
    wire.passing = lambda: clock.advance(TTL / 3)
    patient.release(held)
    for _ in range(4):
        with pytest.raises(StoreError):
            await patient.renew([])
    wire.cut = False
    await patient.renew([])
    assert held.id not in str(wire.calls[-1])


async def test_stalled_event_loop_is_not_silence(hasty: SharedStore, wire: Wire) -> None:
    """A reply that came while this process was held up counts, however long that was."""
    wire.passing = lambda: time.sleep(2 * DEADLINE)
    assert isinstance(await hasty.acquire(lease(limit())), Admitted)
