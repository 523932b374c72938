"""What breaks does not keep slots, and does not stop answers."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.conftest import StartProxy
from tests.rig.burst import Ask
from tests.rig.identities import caller, key
from tests.rig.polling import until
from tests.rig.provider import Provider
from tests.rig.proxy import RESTART_SECONDS, Proxy
from tests.rig.redis_server import RedisServer

pytestmark = pytest.mark.proxy

TTL = 3.0
DENY = {"name": "strict", "where": {"team": "strict"}, "max_parallel_requests": 5, "on_store_failure": "deny"}


@pytest.fixture(scope="module")
def own_redis(folder: Callable[[str], Path]) -> Iterator[RedisServer]:
    """A Redis that these tests may break."""
    server = RedisServer.start(folder("own-redis"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def fragile_proxy(start_proxy: StartProxy, own_redis: RedisServer) -> Proxy:
    """A proxy of two workers with short leases, on that Redis."""
    section = {"parallel_limits": {"lease_ttl": TTL, "limits": [DENY]}}
    return start_proxy(workers=2, redis_port=own_redis.port, litellm_settings=section)


async def hold(proxy: Proxy, provider: Provider, one: str) -> asyncio.Task[httpx.Response]:
    """Return a request of `one` that the provider holds."""
    request = asyncio.create_task(Ask(one).send(proxy))
    await provider.holds(1, caller=caller(one))
    return request


async def test_a_request_longer_than_its_lease_keeps_its_slot(
    fragile_proxy: Proxy, provider: Provider
) -> None:
    """A lease is renewed while its request runs: after two times to live the scope is still full."""
    one = key(metadata={"max_parallel_requests": 1})
    held = await hold(fragile_proxy, provider, one)

    def oldest() -> float:
        scopes = fragile_proxy.status()["scopes"]
        return max((holder["age_seconds"] for scope in scopes for holder in scope["holders"]), default=0)

    await until(lambda: oldest() > 2 * TTL, 4 * TTL, oldest)
    assert (await Ask(one).send(fragile_proxy)).status_code == 429
    provider.open_gate(caller(one))
    assert (await held).status_code == 200
    await fragile_proxy.settled()


async def test_a_flushed_redis_is_exact_within_a_heartbeat(
    fragile_proxy: Proxy, provider: Provider, own_redis: RedisServer
) -> None:
    """Workers tell a Redis that has forgotten everything what they hold."""
    one = key(metadata={"max_parallel_requests": 1})
    held = await hold(fragile_proxy, provider, one)
    own_redis.client.flushall()
    await fragile_proxy.shows(1, TTL / 3 + 1)
    assert (await Ask(one).send(fragile_proxy)).status_code == 429
    provider.open_gate(caller(one))
    assert (await held).status_code == 200
    await fragile_proxy.settled()


@pytest.mark.timeout(3 * RESTART_SECONDS)
async def test_killed_workers_give_their_slots_back(
    fragile_proxy: Proxy, provider: Provider, own_redis: RedisServer
) -> None:
    """After kill -9 of every worker their leases lapse within one time to live.

    The limit leaves two for each worker's share: the flush before may still be settling.
    """
    one = key(metadata={"max_parallel_requests": 4})
    requests = [asyncio.create_task(Ask(one).send(fragile_proxy)) for _ in range(2)]
    await provider.holds(2, caller=caller(one))
    for pid in fragile_proxy.workers():
        os.kill(pid, signal.SIGKILL)
    ended = await asyncio.gather(*requests, return_exceptions=True)
    assert all(isinstance(end, httpx.TransportError) for end in ended)

    def unexpired() -> int:
        redis = own_redis.client
        seconds, micros = redis.time()
        now = seconds * 1000 + micros // 1000
        return sum(int(redis.zcount(name, now, "+inf")) for name in redis.scan_iter("*:lease:*"))

    await until(lambda: unexpired() == 0, TTL + 1, unexpired)
    await until(lambda: answers(fragile_proxy), RESTART_SECONDS, fragile_proxy.log)
    await fragile_proxy.settled()


@pytest.mark.timeout(3 * RESTART_SECONDS)
async def test_a_redis_that_is_gone_stops_no_answer(
    fragile_proxy: Proxy, provider: Provider, own_redis: RedisServer
) -> None:
    """While Redis is out a worker admits its share, a limit that says deny answers 503, and none is a 500."""
    await until(lambda: answers(fragile_proxy), RESTART_SECONDS, fragile_proxy.log)
    one, strict = key(metadata={"max_parallel_requests": 4}), key(team_id="strict")
    assert (await Ask(strict, "openai/ok").send(fragile_proxy)).status_code == 200
    own_redis.stop()
    seen = [await Ask(one, "openai/ok").send(fragile_proxy) for _ in range(4)]
    denied = await Ask(strict, "openai/ok").send(fragile_proxy)
    assert [answer.status_code for answer in seen] == [200] * 4
    assert max(answer.elapsed.total_seconds() for answer in seen) < 5
    assert denied.status_code == 503
    assert denied.headers["retry-after"] == "1"
    assert denied.headers["x-parallel-limit-reason"] == "store_unavailable"
    assert fragile_proxy.status()["degraded"] is True


def answers(proxy: Proxy) -> bool:
    """Whether a worker of the proxy is there."""
    try:
        return proxy.is_alive()
    except httpx.TransportError:
        return False
