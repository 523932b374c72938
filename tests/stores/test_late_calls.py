"""A call that arrives after a later one of its worker changes nothing."""

from __future__ import annotations

import asyncio

import pytest

from litellm_parallel_limits.errors import StoreError
from litellm_parallel_limits.limits import Admitted
from litellm_parallel_limits.stores.exchange import Ask, Exchange
from litellm_parallel_limits.stores.redis import RedisBackend
from tests.rig.polling import until
from tests.samples import lease, limit
from tests.stores.asking import admitted, answers, has_room, holders, turns
from tests.stores.storages import PATIENCE, TTL, InRedis, redis_store

DEADLINE = 0.05


class HeldUp:
    """A client whose first call is held up on its way, however long ago its sender gave it up."""

    def __init__(self, storage: InRedis) -> None:
        self.client = storage.client
        self.arrive = asyncio.Event()
        self.arrived: list[asyncio.Task[object]] = []
        self._calls = 0

    def register_script(self, script: str) -> object:
        """Return `script` as a callable that is held up when it is first called."""
        run = self.client.register_script(script)

        async def on_its_way(*command: object) -> object:
            await self.arrive.wait()
            return await run(*command)

        async def call(*command: object) -> object:
            self._calls += 1
            if self._calls > 1:
                return await run(*command)
            self.arrived.append(asyncio.create_task(on_its_way(*command)))
            return await asyncio.shield(self.arrived[0])

        return call

    def zrange(self, *command: object) -> object:
        """Look."""
        return self.client.zrange(*command)


async def test_admission_that_arrives_late_is_none(redis_storage: InRedis) -> None:
    """A request that was told there is no answer has no slot, when its call gets through at last, either."""
    client = HeldUp(redis_storage)
    store = redis_store(client, timeout=DEADLINE)  # type: ignore[arg-type]  # as one
    with pytest.raises(StoreError):
        await store.acquire(lease(limit()))
    await until(lambda: answers(store), PATIENCE, lambda: "the call is not given up")
    held = await admitted(store, lease(limit("other")))
    client.arrive.set()
    with pytest.raises(Exception, match="LATE"):
        await client.arrived[0]
    assert await holders(store) == {"other": {held.id}}
    assert await has_room(store, limit())


async def test_call_that_is_made_twice_takes_no_slot_twice(redis_storage: InRedis) -> None:
    """A client that lost the reply may send the very same call again: it is admitted as the first time."""
    backend = RedisBackend(redis_storage.client, ttl=TTL)
    begin = await backend.exchange(Exchange("w1", 1, 0, lately=False, epoch=0))
    call = Exchange("w1", 2, 1, lately=True, epoch=begin.epoch, asks=[Ask(lease(limit()))])
    answers = [(await backend.exchange(call)).answers for _ in range(2)]
    assert answers[0] == answers[1]
    assert isinstance(answers[0][0], Admitted)


async def test_workers_number_their_calls_for_themselves(redis_storage: InRedis) -> None:
    """A worker that begins is not late, however many calls another has made."""
    busy, new = redis_storage.store("busy"), redis_storage.store("new")
    for _ in range(5):
        assert await has_room(busy, limit())
    await turns(20)
    assert await has_room(new, limit())


async def test_numbers_are_forgotten_with_their_worker(redis_storage: InRedis) -> None:
    """The number of a worker's last call vanishes by itself."""
    await has_room(redis_storage.store("w1"), limit())
    [name] = [key async for key in redis_storage.client.scan_iter("*:worker:*")]
    assert 0 < await redis_storage.client.pttl(name) <= TTL * 1000 + 1
