"""A store whose master is gone answers again soon after another one has taken over."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from litellm_parallel_limits.connections import own_client
from litellm_parallel_limits.stores import Store
from litellm_parallel_limits.stores.redis import ROOT, RedisBackend
from litellm_parallel_limits.stores.shared import SharedStore
from tests.rig.cluster import Cluster
from tests.rig.polling import until
from tests.rig.process import HOST
from tests.rig.redis_server import RedisServer
from tests.rig.sentinel import SERVICE, Sentinels
from tests.samples import lease, limit
from tests.stores.asking import admitted, answers, holders, renewed

TIMEOUT = 0.25
"""The default of `store_timeout_ms`, in seconds: connecting anew must not need longer ones."""

PROMPT = 4.0
"""Seconds from the failover to an answer at most, on a busy machine. Each server that is gone without a
word costs one."""

logger = logging.getLogger(__name__)


@asynccontextmanager
async def store_on(**settings: Any) -> AsyncIterator[Store]:
    """Yield a store on the Redis of which LiteLLM's cache has these settings."""
    client = own_client({"socket_timeout": 5.0, **settings}, key=ROOT, timeout=TIMEOUT)
    try:
        yield SharedStore(RedisBackend(client, ttl=30), worker="w1", ttl=30, timeout=TIMEOUT)
    finally:
        await client.aclose()


@pytest.fixture
def sentinels(tmp_path: Path) -> Iterator[Sentinels]:
    """A master with a replica that three sentinels watch."""
    sentinels = Sentinels.start(tmp_path)
    yield sentinels
    sentinels.stop()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A Cluster of three masters with replicas."""
    cluster = Cluster.start(tmp_path)
    yield cluster
    cluster.stop()


def kill_machine(sentinels: Sentinels) -> None:
    """End the master, and the sentinel beside it."""
    sentinels.kill_master()
    sentinels.kill_sentinel()


def lose_machine(sentinels: Sentinels) -> None:
    """Let neither the master nor the sentinel beside it be heard of again."""
    sentinels.hang_master()
    sentinels.hang_sentinel()


@pytest.mark.parametrize("lose", [Sentinels.kill_master, kill_machine, lose_machine])
async def test_a_store_behind_sentinels_finds_the_new_master(
    sentinels: Sentinels, lose: Callable[[Sentinels], None]
) -> None:
    """Whether the master died or is silent, and though the sentinel that is asked first is so as well."""
    nodes = [list(node) for node in sentinels.nodes]
    async with store_on(sentinel_nodes=nodes, service_name=SERVICE) as store:
        await survives(store, sentinels, lose)


@pytest.mark.parametrize("lose", [Cluster.kill_master, Cluster.hang_master])
async def test_a_store_on_a_cluster_finds_the_new_master(
    cluster: Cluster, lose: Callable[[Cluster], None]
) -> None:
    """Whether the master of our slot died or is silent."""
    async with store_on(startup_nodes=cluster.startup_nodes) as store:
        await survives(store, cluster, lose)


async def test_a_store_leaves_a_master_that_was_demoted(sentinels: Sentinels) -> None:
    """A connection to what is a replica now, and only reads, is given up for one to the new master."""
    nodes = [list(node) for node in sentinels.nodes]
    async with store_on(sentinel_nodes=nodes, service_name=SERVICE) as store:
        await renewed(store)
        sentinels.order_failover()
        await sentinels.failed_over()
        sentinels.replica.ask("REPLICAOF", HOST, str(sentinels.master.port))
        await keeps_leases_in(sentinels.master, store)


async def survives(store: Store, rig: Any, lose: Callable[[Any], None]) -> None:
    """Assert that the store, called all the time, soon answers from the new master."""
    held = await admitted(store, lease(limit("before")))
    began = time.monotonic()
    lose(rig)
    taking_over = asyncio.create_task(_seconds(rig.failed_over(), began))

    async def answers_again() -> bool:
        return await answers(store) and taking_over.done()

    answering = await _seconds(until(answers_again, 30, lambda: taking_over), began)
    logger.info("another master after %.1f s, an answer after %.1f s", await taking_over, answering)
    assert answering - await taking_over < PROMPT
    await renewed(store, held)
    assert await holders(store) == {"before": {held.id}}
    await keeps_leases_in(rig.master, store)


async def keeps_leases_in(server: RedisServer, store: Store) -> None:
    """Assert that a new lease is there."""
    await until(lambda: answers(store), PROMPT, lambda: "no answer")
    after = limit("after")
    await admitted(store, lease(after))
    assert server.client.exists(f"{ROOT}:lease:{after.scope.key}")


async def _seconds(waiting: Awaitable[None], since: float) -> float:
    """Return how many seconds it took."""
    await waiting
    return time.monotonic() - since
