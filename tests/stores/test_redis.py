"""What is special to Redis: its keys, its replies, and its server's life."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis

from litellm_parallel_limits.errors import StoreError
from litellm_parallel_limits.limits import Refused
from litellm_parallel_limits.stores import redis
from litellm_parallel_limits.stores.shared import SharedStore
from tests.rig.polling import until
from tests.rig.process import HOST
from tests.rig.redis_server import RedisServer
from tests.samples import lease, limit, observed
from tests.stores.asking import admitted, answers, has_room, holders
from tests.stores.storages import PATIENCE, TTL, Connect, InRedis, redis_store

ROOT = "{litellm_parallel_limits}"
EPOCH = f"{ROOT}:epoch".encode()
FOR_EVER = -1
DEADLINE = 0.05


async def test_lost_scripts_are_loaded_again(redis_storage: InRedis) -> None:
    """A Redis that lost its scripts, as after a restart, answers the next request."""
    store = redis_storage.store()
    held = await admitted(store, lease(limit()))
    await redis_storage.client.script_flush()
    assert not await has_room(store, limit())
    await redis_storage.client.script_flush()
    assert await holders(store) == {"team": {held.id}}


@pytest.mark.parametrize("decode_responses", [True, False])
async def test_replies_may_be_decoded_or_not(connect: Connect, *, decode_responses: bool) -> None:
    """A client that decodes replies into text and one that does not serve alike."""
    client = connect(decode_responses=decode_responses)
    await client.flushdb()
    store = redis_store(client)
    held = await admitted(store, lease(limit(of="ä"), observed()))
    await admitted(store, lease(observed()))
    assert (await holders(store))["team"] == {held.id}
    assert len((await holders(store))["watched"]) == 2
    await client.aclose()


async def test_leases_of_a_scope_are_in_its_key(redis_storage: InRedis) -> None:
    """The leases of a scope live in the key of its name, and `:lease:` is in no other key."""
    store = redis_storage.store()
    await admitted(store, lease(limit("team", of="a,model=b"), limit("user"), observed(capacity=0)))
    keys = {key.decode() for key in await redis_storage.client.keys()}
    assert {key for key in keys if ":lease:" in key} == {
        f"{ROOT}:lease:team;team=a%2Cmodel%3Db",
        f"{ROOT}:lease:user;team=research",
    }
    assert await redis_storage.client.zcard(f"{ROOT}:lease:user;team=research") == 1


async def test_keys_have_one_hash_tag(redis_storage: InRedis) -> None:
    """Every key has the same first hash tag, whatever an identity contains: a Cluster allows the call."""
    store = redis_storage.store()
    await admitted(store, lease(limit(of="{a}"), limit("user", of="}{b}"), observed(capacity=0)))
    assert {key.decode().partition(":")[0] for key in await redis_storage.client.keys()} == {ROOT}


async def test_keys_begin_with_the_prefix(redis_storage: InRedis) -> None:
    """Stores of different prefixes share nothing."""
    client = redis_storage.client
    theirs = redis_store(client, prefix="theirs:")
    held = await admitted(theirs, lease(limit(), observed(capacity=0)))
    assert {key.decode().partition("{")[0] for key in await client.keys()} == {"theirs:"}
    assert await has_room(redis_storage.store(), limit())
    assert await holders(redis_storage.store()) == {}
    assert (await holders(theirs))["team"] == {held.id}


async def test_every_key_vanishes_by_itself(redis_storage: InRedis) -> None:
    """No key lives much longer than the last lease in it could, but for that which tells of a loss."""
    store = redis_storage.store()
    held = await admitted(store, lease(limit(), observed(capacity=0)))
    await store.renew([held, lease(limit("user"))])
    lives = {key: await redis_storage.client.pttl(key) for key in await redis_storage.client.keys()}
    assert lives.pop(EPOCH) == FOR_EVER
    assert all(0 < left <= TTL * 1250 for left in lives.values()), lives


async def test_what_is_noted_vanishes_by_itself(redis_storage: InRedis) -> None:
    """What workers note is kept for its time, however often they add to it."""
    store = redis_storage.store()
    for _ in range(2):
        await store.note("a", {"held:": 1}, seconds=900, most=9)
    (noted,) = [key for key in await redis_storage.client.keys() if b":noted:" in key]
    assert 0 < await redis_storage.client.pttl(noted) <= 900 * 1000


async def test_renewed_keys_live_as_long_as_their_leases(redis_storage: InRedis) -> None:
    """A key lives at least as long as the lease that was renewed last."""
    store = redis_storage.store()
    held = await admitted(store, lease(limit()))
    for _ in range(3):
        await redis_storage.age(TTL - 10)
        await store.renew([held])
    assert await holders(store) == {"team": {held.id}}


async def test_many_that_lapsed_go_bit_by_bit(
    redis_storage: InRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No call is busy with all of them, and none of them counts."""
    monkeypatch.setattr(redis, "MOST_PRUNED", 2)
    store, full = redis_storage.store(), limit(capacity=1)
    for _ in range(5):
        await admitted(store, lease(limit(capacity=9)))
    await redis_storage.age(TTL - 10)
    await admitted(store, lease(limit(capacity=9)))
    await redis_storage.age(11)
    left = []
    for _ in range(4):
        assert await store.acquire(lease(full)) == Refused(full, 1)
        left.append(await redis_storage.client.zcard(f"{ROOT}:lease:{full.scope.key}"))
    assert left == [4, 2, 1, 1]


async def test_nothing_is_left_of_what_lapsed(redis_storage: InRedis) -> None:
    """When a time to live and a bit has passed with nobody at work, only the epoch is left."""
    store = redis_storage.store()
    await admitted(store, lease(limit(), observed(capacity=0)))
    store.release(await admitted(store, lease(limit("user"))))
    await store.snapshot()
    await redis_storage.age(TTL * 1.25 + 1)
    assert await redis_storage.client.keys() == [EPOCH]


async def test_nothing_is_left_of_a_released_scope(redis_storage: InRedis) -> None:
    """The key of a scope goes with its last lease."""
    store = redis_storage.store()
    store.release(await admitted(store, lease(limit())))
    await store.snapshot()
    assert not [key for key in await redis_storage.client.keys() if b":lease:" in key]


@pytest.mark.parametrize("is_full", [True, False])
async def test_busy_scope_does_not_gather_the_dead(redis_storage: InRedis, *, is_full: bool) -> None:
    """A scope that is always in use drops the leases that lapsed, when it is full or one is renewed."""
    store = redis_storage.store()
    held = await admitted(store, lease(limit(capacity=99)))
    for _ in range(10):
        await admitted(store, lease(limit(capacity=99)))
        await redis_storage.age(TTL - 10)
        if is_full:
            assert not await has_room(store, limit(capacity=1))
        else:
            await store.renew([held])
    assert await redis_storage.client.zcard(f"{ROOT}:lease:team;team=research") < 5


async def test_workers_know_how_many_they_are(redis_storage: InRedis) -> None:
    """A worker counts while it calls at least once in a time to live."""
    first, second = redis_storage.store("w1"), redis_storage.store("w2")
    await first.renew([])
    assert first.workers == 1
    await second.renew([])
    await first.renew([])
    assert first.workers == second.workers == 2
    await redis_storage.age(TTL + 1)
    await first.renew([])
    assert first.workers == 1


async def test_workers_are_at_least_as_many_as_told(redis_storage: InRedis) -> None:
    """A proxy knows how many workers it runs: those that have not called Redis yet are counted too."""
    store = redis_store(redis_storage.client, workers=4)
    assert store.workers == 4
    await store.renew([])
    assert store.workers == 4


@asynccontextmanager
async def own_store(server: RedisServer) -> AsyncIterator[SharedStore]:
    """Yield an impatient store on a server, which has answered it before."""
    client = Redis(host=HOST, port=server.port)
    store = redis_store(client, timeout=DEADLINE)
    await store.renew([])
    yield store
    await client.aclose()


async def test_killed_server_is_an_error(tmp_path: Path) -> None:
    """Whoever asks a Redis that has died is told so at once."""
    server = RedisServer.start(tmp_path)
    async with own_store(server) as store:
        server.stop()
        for ask in (store.acquire(lease(limit())), store.renew([]), store.snapshot()):
            with pytest.raises(StoreError):
                await asyncio.wait_for(ask, 20 * DEADLINE)


async def test_restarted_server_serves_again(tmp_path: Path) -> None:
    """A store goes on where a new Redis answers at the old place."""
    server = RedisServer.start(tmp_path)
    async with own_store(server) as store:
        server.stop()
        with pytest.raises(StoreError):
            await store.renew([])
        server = RedisServer.start(tmp_path, server.port)
        await until(lambda: answers(store), PATIENCE, server.server.output)
        assert await has_room(store, limit())
    server.stop()
