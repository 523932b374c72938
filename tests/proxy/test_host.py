"""Several workers on one machine share one count without Redis."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator

import httpx
import pytest

from tests.conftest import StartProxy
from tests.rig.burst import Ask, burst
from tests.rig.identities import caller, key
from tests.rig.litellm_version import GRANIAN, needs
from tests.rig.polling import until
from tests.rig.provider import Provider
from tests.rig.proxy import RESTART_SECONDS, Proxy

pytestmark = pytest.mark.proxy

TTL = 3.0
WORKERS = 2
SERVERS = {"uvicorn": [], "gunicorn": ["--run_gunicorn"], "granian": ["--run_granian"]}
ON_EACH = ("uvicorn", "gunicorn", pytest.param("granian", marks=needs(GRANIAN)))


@pytest.fixture(params=ON_EACH, scope="module")
def host_proxy(request: pytest.FixtureRequest, start_proxy: StartProxy) -> Iterator[Proxy]:
    """A proxy of several workers under each server, with short leases and nothing said of a store."""
    section = {"parallel_limits": {"lease_ttl": TTL}}
    proxy = start_proxy(workers=WORKERS, flags=SERVERS[request.param], litellm_settings=section)
    yield proxy
    proxy.stop()


async def test_workers_without_redis_count_together(host_proxy: Proxy, provider: Provider) -> None:
    """Of many requests at once no more are at the provider than the limit, whichever worker they meet."""
    one = key(metadata={"max_parallel_requests": 4})
    answers = await burst(host_proxy, provider, [Ask(one)] * 24)
    assert (answers.held, answers.statuses) == (4, {200: 4, 429: 20})
    assert host_proxy.status()["store"] == "host"
    assert not host_proxy.status()["degraded"]
    await host_proxy.settled()


@pytest.mark.timeout(3 * RESTART_SECONDS)
@pytest.mark.parametrize("host_proxy", ["uvicorn"], indirect=True)
async def test_killed_workers_give_their_slots_back(host_proxy: Proxy, provider: Provider) -> None:
    """After kill -9 of every worker their leases lapse within one time to live, and new workers go on."""
    one = key(metadata={"max_parallel_requests": 4})
    requests = [asyncio.create_task(Ask(one).send(host_proxy)) for _ in range(4)]
    await provider.holds(4, caller=caller(one))
    for pid in host_proxy.workers():
        os.kill(pid, signal.SIGKILL)
    ended = await asyncio.gather(*requests, return_exceptions=True)
    assert all(isinstance(end, httpx.TransportError) for end in ended)
    await until(lambda: answers(host_proxy), RESTART_SECONDS, host_proxy.log)
    await host_proxy.settled(TTL + 5)
    assert (await burst(host_proxy, provider, [Ask(one)] * 8)).held == 4


def test_a_worker_alone_counts_in_memory(memory_proxy: Proxy) -> None:
    """A proxy of one worker needs no file."""
    assert memory_proxy.status()["store"] == "memory"


def answers(proxy: Proxy) -> bool:
    """Whether a worker of the proxy is there."""
    try:
        return proxy.is_alive()
    except httpx.TransportError:
        return False


def test_several_workers_that_count_alone_are_told_of_loudly(start_proxy: StartProxy) -> None:
    """A proxy of several workers that is told to keep its leases in memory warns of it at start."""
    proxy = start_proxy(workers=2, litellm_settings={"parallel_limits": {"store": "memory"}})
    assert "this proxy has several workers: each counts alone" in proxy.log()
    proxy.stop()
