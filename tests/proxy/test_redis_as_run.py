"""Limits hold on a Redis as people run it, which only LiteLLM's own settings tell of."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from redis import Redis

from tests.rig.burst import Ask, burst
from tests.rig.certificates import Certificates
from tests.rig.cluster import Cluster
from tests.rig.config import config
from tests.rig.identities import caller, key
from tests.rig.litellm_version import COORDINATION_REDIS, SENTINELS_PASSWORD, marks
from tests.rig.process import HOST
from tests.rig.provider import Provider
from tests.rig.proxy import Proxy
from tests.rig.redis_server import RedisServer
from tests.rig.sentinel import SERVICE, Sentinels

pytestmark = [pytest.mark.proxy, pytest.mark.timeout(300)]

PASSWORD = "correct-horse"
KEY_LIMIT, TEAM_LIMIT = 2, 3
UNHURRIED = {"parallel_limits": {"store_timeout_ms": 2000}}
"""A busy machine is no failure here."""


@dataclass(frozen=True)
class SetUp:
    """What tells LiteLLM of a Redis, in the words of `config`, and a connection to look into it."""

    redis: Redis
    settings: Mapping[str, Any]
    workers: int = 1
    namespace: str = ""

    def leases(self) -> set[str]:
        """Return the scopes in which somebody holds a slot, of the keys that are where ours must be."""
        beginning = f"{self.namespace}{{litellm_parallel_limits}}:lease:"
        names = {str(name) for name in self.redis.scan_iter("*:lease:*", count=1000)}
        assert all(name.startswith(beginning) for name in names), names
        return {name.removeprefix(beginning).partition(";")[0] for name in names}


@contextmanager
def with_tls_and_a_namespace(folder: Path) -> Iterator[SetUp]:
    """A server that speaks TLS only, asks for a password, and is shared with other applications."""
    certificates = Certificates.make(folder)
    server = RedisServer.start(folder, password=PASSWORD, certificates=certificates)
    tls = {"ssl": True, "ssl_ca_certs": str(certificates.authority)}
    params = {"host": HOST, "port": server.port, "password": PASSWORD, "namespace": "gateway", **tls}
    try:
        yield SetUp(server.client, {"cache_params": params}, namespace="gateway:")
    finally:
        server.stop()


@contextmanager
def behind_sentinels(folder: Path) -> Iterator[SetUp]:
    """A master with a password, where LiteLLM can log in, which only the sentinels know where to find."""
    password = PASSWORD if SENTINELS_PASSWORD else None
    sentinels = Sentinels.start(folder, password=password)
    nodes = [list(node) for node in sentinels.nodes]
    params = {"sentinel_nodes": nodes, "service_name": SERVICE, "password": password}
    try:
        yield SetUp(sentinels.master.client, {"cache_params": params}, workers=2)
    finally:
        sentinels.stop()


@contextmanager
def of_a_cluster(folder: Path) -> Iterator[SetUp]:
    """A Cluster, which refuses a call that touches two of its slots."""
    cluster = Cluster.start(folder, password=PASSWORD)
    params = {"redis_startup_nodes": cluster.startup_nodes, "password": PASSWORD}
    try:
        yield SetUp(cluster.master.client, {"cache_params": params}, workers=2)
    finally:
        cluster.stop()


@contextmanager
def of_the_router(folder: Path) -> Iterator[SetUp]:
    """A server that only the router's settings name."""
    server = RedisServer.start(folder, password=PASSWORD)
    named = {"redis_host": HOST, "redis_port": server.port, "redis_password": PASSWORD}
    try:
        yield SetUp(server.client, {"router_settings": named})
    finally:
        server.stop()


@contextmanager
def for_coordination(folder: Path) -> Iterator[SetUp]:
    """A server for what the proxies have in common, beside a cache that is kept elsewhere."""
    server = RedisServer.start(folder, password=PASSWORD)
    named = {"host": HOST, "port": server.port, "password": PASSWORD}
    try:
        yield SetUp(server.client, {"general_settings": {"coordination_redis": named}})
    finally:
        server.stop()


SET_UPS: Mapping[str, Callable[[Path], AbstractContextManager[SetUp]]] = {
    "tls and namespace": with_tls_and_a_namespace,
    "sentinel": behind_sentinels,
    "cluster": of_a_cluster,
    "router_settings": of_the_router,
    "coordination_redis": for_coordination,
}
NEEDS = {"coordination_redis": COORDINATION_REDIS}


@dataclass(frozen=True)
class Placed:
    """A proxy that was launched, and the Redis it is on."""

    set_up: SetUp
    proxy: Proxy


@pytest.fixture(scope="module")
def placed(
    request: pytest.FixtureRequest, provider: Provider, folder: Callable[[str], Path]
) -> Iterator[Mapping[str, Placed]]:
    """A proxy on each Redis that the tests to run ask for: all at once, as starting is most of the time."""
    here = [item for item in request.session.items if isinstance(item, pytest.Function)]
    names = {str(item.callspec.params["name"]) for item in here if item.module is request.module}
    with ExitStack() as running:
        placed = {}
        for name in sorted(name for name in names if NEEDS.get(name, True)):
            set_up = running.enter_context(SET_UPS[name](folder("redis")))
            configured = config(provider.url, litellm_settings=UNHURRIED, **set_up.settings)
            proxy = Proxy.launch(folder("proxy"), configured, workers=set_up.workers)
            running.callback(proxy.stop)
            placed[name] = Placed(set_up, proxy)
        yield placed
        for one in placed.values():
            one.proxy.server.process.terminate()  # all at once, as stopping takes seconds too


@pytest.fixture(scope="module", params=[pytest.param(name, marks=marks(NEEDS.get(name))) for name in SET_UPS])
def name(request: pytest.FixtureRequest) -> str:
    """The name of each set-up in turn."""
    found: str = request.param
    return found


@pytest.fixture(scope="module")
def set_up(placed: Mapping[str, Placed], name: str) -> SetUp:
    """Each set-up in turn."""
    return placed[name].set_up


@pytest.fixture(scope="module")
def proxy(placed: Mapping[str, Placed], name: str) -> Proxy:
    """The proxy on it."""
    proxy = placed[name].proxy
    proxy.server.wait_until(proxy.is_alive, seconds=240)
    return proxy


def keys_of_a_team() -> list[str]:
    """Return two keys of one team: each has a limit of its own, and meets the team's as well."""
    team = {"team_id": uuid4().hex, "team_metadata": {"team_max_parallel_requests": TEAM_LIMIT}}
    return [key(**team, metadata={"max_parallel_requests": KEY_LIMIT}) for _ in range(2)]


async def test_a_key_fills_its_limit_again_and_again(proxy: Proxy, provider: Provider) -> None:
    """Of a burst exactly the key's number is admitted, over all workers; then its slots are free again."""
    one, _ = keys_of_a_team()
    for _ in range(2):
        seen = await burst(proxy, provider, [Ask(one)] * (KEY_LIMIT + 2))
        assert seen.held == KEY_LIMIT
        assert seen.statuses == {200: KEY_LIMIT, 429: 2}
        assert {refusal.headers["x-parallel-limit-name"] for refusal in seen.refusals} == {"api_key"}
        await proxy.settled()
        provider.close_gate(caller(one))


async def test_both_limits_of_a_request_hold(proxy: Proxy, provider: Provider) -> None:
    """Two keys that have room meet the limit of their team, which is taken together with their own."""
    seen = await burst(proxy, provider, [Ask(one) for one in keys_of_a_team() for _ in range(KEY_LIMIT)])
    assert seen.held == TEAM_LIMIT
    assert [refusal.headers["x-parallel-limit-name"] for refusal in seen.refusals] == ["team"]
    await proxy.settled()


async def test_the_slots_are_in_that_redis(set_up: SetUp, proxy: Proxy, provider: Provider) -> None:
    """While a request runs its slots are there under their names, and gone afterwards."""
    one, _ = keys_of_a_team()
    request = asyncio.create_task(Ask(one).send(proxy))
    await provider.holds(1, caller=caller(one))
    await proxy.shows(1, 10)
    status = proxy.status()
    assert (status["store"], status["degraded"]) == ("redis", False)
    assert set_up.leases() == {"api_key", "team"}
    provider.open_gate(caller(one))
    assert (await request).status_code == 200
    await proxy.settled()
    assert set_up.leases() == set()
    assert "CROSSSLOT" not in proxy.log()
