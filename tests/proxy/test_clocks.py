"""No proxy's wall clock matters."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import StartProxy
from tests.rig.burst import Ask
from tests.rig.identities import caller, key
from tests.rig.polling import until
from tests.rig.provider import Provider
from tests.rig.redis_server import RedisServer
from tests.rig.wall_clock import WallClock

pytestmark = pytest.mark.proxy

TTL = 3.0
SECTION = {"parallel_limits": {"lease_ttl": TTL}}
HOUR = 3600.0


async def test_a_wrong_clock_changes_nothing_on_redis(
    start_proxy: StartProxy, folder: Callable[[str], Path], redis_server: RedisServer, provider: Provider
) -> None:
    """A proxy that is ten minutes ahead and one that is right hold a limit together, longer than a lease."""
    ahead = WallClock.ahead(folder("clock"), 600)
    wrong = start_proxy(env=ahead.env, redis_port=redis_server.port, litellm_settings=SECTION)
    right = start_proxy(redis_port=redis_server.port, litellm_settings=SECTION)
    one = key(metadata={"max_parallel_requests": 2})
    held = [asyncio.create_task(Ask(one).send(proxy)) for proxy in (wrong, right)]
    await provider.holds(2, caller=caller(one))

    def ages() -> list[float]:
        scopes = right.status()["scopes"]
        return [holder["age_seconds"] for scope in scopes for holder in scope["holders"]]

    await until(lambda: min(ages()) > TTL, 3 * TTL, ages)
    assert len(ages()) == 2
    assert max(ages()) < 60
    assert [(await Ask(one).send(proxy)).status_code for proxy in (wrong, right)] == [429, 429]
    provider.open_gate(caller(one))
    assert [answer.status_code for answer in await asyncio.gather(*held)] == [200, 200]
    await right.settled()
    assert wrong.status()["in_flight"] == 0


@pytest.mark.parametrize("store", ["memory", "host"])
async def test_a_jump_of_the_clock_changes_nothing_on_this_machine(
    store: str, start_proxy: StartProxy, folder: Callable[[str], Path], provider: Provider
) -> None:
    """When the wall clock jumps an hour on, and back again, what is held stays held, and no more."""
    clock = WallClock.ahead(folder("clock"))
    section = {"parallel_limits": {"lease_ttl": TTL, "store": store}}
    proxy = start_proxy(env=clock.env, litellm_settings=section)
    one = key(metadata={"max_parallel_requests": 1})
    held = asyncio.create_task(Ask(one).send(proxy))
    await provider.holds(1, caller=caller(one))
    for jump in (HOUR, -HOUR):
        clock.jump(jump)
        assert (await Ask(one).send(proxy)).status_code == 429
        assert proxy.status()["in_flight"] == 1
    provider.open_gate(caller(one))
    assert (await held).status_code == 200
    await proxy.settled()
    assert (await Ask(one, "openai/ok").send(proxy)).status_code == 200
