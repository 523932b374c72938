"""What a request costs Redis does not grow unnoticed: its commands are counted, and no time is measured."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from litellm_parallel_limits.limits import Lease
from tests.samples import lease, limit
from tests.stores.asking import admitted
from tests.stores.storages import Connect, InRedis, in_redis

FOUR = [limit(name, 1_000) for name in ("key", "user", "team", "pool")]
CALLS = ("evalsha", "eval")


async def commands(client: Any) -> dict[str, int]:
    """Return how often each command was carried out, those of scripts included."""
    stats = await client.info("commandstats")
    return {name.removeprefix("cmdstat_"): told["calls"] for name, told in stats.items()}


async def spent(storage: InRedis, concurrent: int, rounds: int = 1) -> tuple[float, float]:
    """Return the calls for a request with four limits, so many at a time, and the commands in them."""
    store = storage.store()
    await admitted(store, lease(limit("other")))  # what is done once
    client: Any = storage.client
    await client.config_resetstat()
    for _ in range(rounds):
        held: Sequence[Lease] = await asyncio.gather(
            *(admitted(store, lease(*FOUR)) for _ in range(concurrent))
        )
        for one in held:
            store.release(one)
    await store.told()
    found = await commands(client)
    calls = sum(found.pop(name, 0) for name in CALLS)
    return calls / (concurrent * rounds), (sum(found.values()) - 1) / (concurrent * rounds)


@pytest.fixture
async def storage(connect_redis: Connect) -> AsyncIterator[InRedis]:
    """Yield a storage in a real Redis, which counts what it does."""
    async with in_redis(connect_redis) as storage:
        yield storage


async def test_one_at_a_time(storage: InRedis) -> None:
    """A call to take four slots, and one to give them back, which takes the next request along."""
    calls, commands = await spent(storage, 1)
    assert calls <= 2
    assert commands <= 80


async def test_fifty_at_a_time(storage: InRedis) -> None:
    """They share the calls, and what each call does once."""
    calls, commands = await spent(storage, 50, rounds=4)
    assert calls <= 0.16
    assert commands <= 24
