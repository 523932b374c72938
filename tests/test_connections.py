"""Our connections to LiteLLM's Redis outlive who asks for them, and come back after whatever happened."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from redis.exceptions import RedisError

from litellm_parallel_limits.connections import OwnClient, own_client
from tests.rig.polling import until
from tests.rig.process import HOST
from tests.rig.redis_server import RedisServer
from tests.rig.relay import Relay

TIMEOUT = 0.25
HASTE = 0.05
"""Seconds that a caller here waits: too short for a connection that is held up."""

SCRIPT = "return redis.call('EXISTS', KEYS[1]) + ARGV[1]"


@pytest.fixture
def relay(redis_server: RedisServer) -> Iterator[Relay]:
    """A way to a real server."""
    relay = Relay.start(redis_server.port)
    yield relay
    relay.stop()


@pytest.fixture
async def client(relay: Relay) -> AsyncIterator[OwnClient]:
    """A client on that way, of a LiteLLM whose own pool has room for one connection."""
    settings = {"host": HOST, "port": relay.port, "socket_timeout": 5.0, "max_connections": 1}
    client = own_client(settings, key="key", timeout=TIMEOUT)
    yield client
    await client.aclose()


async def answers(client: OwnClient, seconds: float = 5) -> bool:
    """Whether the server answers in time."""
    try:
        return bool(await asyncio.wait_for(client.register_script(SCRIPT)(["nobody"], [7]), seconds) == 7)
    except (RedisError, asyncio.TimeoutError):
        return False


async def test_a_connection_outlives_who_asks_for_it(client: OwnClient, relay: Relay) -> None:
    """Callers that have gone leave it to be made; the next one finds it, and makes no other."""
    relay.stall()
    assert [await answers(client, HASTE) for _ in range(3)] == [False] * 3
    relay.go_on()
    assert await answers(client)
    assert relay.accepted == 1


async def test_a_connection_that_was_cut_is_made_anew(client: OwnClient, relay: Relay) -> None:
    """After a cut, and after a reply that was lost, at most one call fails."""
    assert await answers(client)
    relay.cut()
    assert sum([await answers(client) for _ in range(3)]) >= 2
    relay.lose_replies(1)
    assert [await answers(client) for _ in range(3)] == [False, True, True]


async def test_a_server_that_hung_answers_again(client: OwnClient, relay: Relay) -> None:
    """A call that was given up does not stay in the way of the next."""
    assert await answers(client)
    relay.stall()
    assert [await answers(client, HASTE) for _ in range(3)] == [False] * 3
    relay.go_on()
    assert await answers(client)


async def test_a_script_that_redis_lost_is_sent_again(client: OwnClient, redis_server: RedisServer) -> None:
    """A newly promoted replica, or one that was restarted, knows no script."""
    run = client.register_script(SCRIPT)
    for _ in range(2):
        redis_server.client.script_flush()
        assert await run(["nobody"], [1]) == 1


async def test_two_calls_never_wait_for_each_other(client: OwnClient, relay: Relay) -> None:
    """LiteLLM's bound on its connections is none on ours."""
    assert await answers(client)
    relay.stall(replies_only=True)
    calls = asyncio.gather(*(client.register_script(SCRIPT)(["nobody"], [n]) for n in range(2)))
    await until(lambda: relay.connections == 2, 5, lambda: relay.connections)
    relay.go_on()
    assert await calls == [0, 1]
