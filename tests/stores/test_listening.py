"""A worker hears of the turns of those that wait in it, whatever its way to Redis lets it do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from litellm_parallel_limits.limits import Patience, Refused, Wait, Waiting
from litellm_parallel_limits.stores import turns
from litellm_parallel_limits.stores.redis import RedisBackend
from litellm_parallel_limits.stores.shared import SharedStore
from tests.rig.polling import until
from tests.rig.redis_server import RedisServer
from tests.samples import lease, limit
from tests.stores.asking import admitted, renewed
from tests.stores.storages import TTL, real_client

EAR = "test_listening"
"""The name of the connection that listens: only that is cut, of a server that other tests use as well."""

FULL = limit(wait=Wait(60, 9))


class Ear:
    """A client that listens, as far as a test lets it."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.may_block = self.may_read = True
        self.reads = 0

    async def xread(self, streams: Any, *, count: int, block: int | None) -> Any:
        """Return what is new in streams."""
        self.reads += 1
        if not self.may_read or (block is not None and not self.may_block):
            raise ResponseError("not here")
        return await self.client.xread(streams, count=count, block=block)


class Worker:
    """A worker that waits, and one that holds."""

    def __init__(self, port: int, **options: Any) -> None:
        self.clients: list[Redis] = [
            real_client(port, client_name=name, **options) for name in (EAR, "store", "other")
        ]
        self.ear = Ear(self.clients[0])
        self.store = SharedStore(RedisBackend(self.clients[1], self.ear, ttl=TTL), worker="w1", ttl=TTL)
        self.other = SharedStore(RedisBackend(self.clients[2], ttl=TTL), worker="w2", ttl=TTL)

    async def hears(self) -> bool:
        """Whether who waits is told of its turn."""
        for store in (self.store, self.other):
            await renewed(store)
        held = await admitted(self.other, lease(FULL, worker="w2"))
        place = await self.store.wait(lease(FULL), Patience())
        assert isinstance(place, Waiting), place
        self.other.release(held)
        granted = await asyncio.wait_for(place.turn, 5)
        self.store.release(granted.lease)
        await renewed(self.store)
        return granted.lease.id == place.lease.id

    async def close(self) -> None:
        """Leave nothing behind. A client that is closed while it is listened to connects again."""
        await self.store.snapshot()
        listening = self.store._turns._listening  # noqa: SLF001
        await until(lambda: listening is None or listening.done(), 5, lambda: "it listens on")
        await self.clients[1].flushdb()
        for client in self.clients:
            await client.aclose()


@pytest.fixture(params=[{}, {"protocol": 3}, {"decode_responses": True}], ids=["resp2", "resp3", "texts"])
async def worker(
    request: pytest.FixtureRequest, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Worker]:
    """Yield a worker, with each kind of connection."""
    monkeypatch.setattr(turns, "IDLE_SECONDS", 0.1)
    worker = Worker(redis_server.port, **request.param)
    await worker.clients[1].flushdb()
    yield worker
    await worker.close()


async def test_turn_is_heard_of(worker: Worker) -> None:
    """Over every protocol, as bytes or as texts, and once more."""
    assert await worker.hears()
    assert await worker.hears()


async def test_turn_is_heard_of_where_nothing_may_block(worker: Worker) -> None:
    """Some proxies before Redis know no blocking calls."""
    worker.ear.may_block = False
    assert await worker.hears()


async def test_turn_is_heard_of_after_a_cut(worker: Worker) -> None:
    """What was told meanwhile is read by the next connection."""
    assert await worker.hears()
    held = await admitted(worker.other, lease(FULL, worker="w2"))
    place = await worker.store.wait(lease(FULL), Patience())
    assert isinstance(place, Waiting), place
    worker.ear.may_read = False
    for connection in await worker.clients[1].client_list():
        if connection["name"] == EAR:
            await worker.clients[1].client_kill_filter(_id=connection["id"])
    worker.other.release(held)
    await renewed(worker.other)
    worker.ear.may_read = True
    assert (await asyncio.wait_for(place.turn, 5)).lease.id == place.lease.id
    worker.store.release(place.turn.result().lease)


async def test_nobody_waits_who_could_not_be_told(worker: Worker) -> None:
    """Where nothing can be listened to, the limit refuses."""
    worker.ear.may_read = False
    await renewed(worker.store)
    held = await admitted(worker.store, lease(FULL))
    assert await worker.store.wait(lease(FULL), Patience()) == Refused(FULL, 1)
    worker.store.release(held)
