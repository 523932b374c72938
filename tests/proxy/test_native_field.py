"""A key's own `max_parallel_requests`, which LiteLLM's limiter leaves to us where the operator says so."""

from __future__ import annotations

import hashlib

import pytest

from tests.conftest import StartProxy
from tests.rig.burst import Ask, burst
from tests.rig.identities import caller, key
from tests.rig.provider import Provider
from tests.rig.proxy import Proxy
from tests.rig.redis_server import RedisServer

pytestmark = pytest.mark.proxy

NAME = "x-parallel-limit-name"
HALF = {"model": "openai/gated-half", "messages": [{"role": "user", "content": "hi"}], "stream": True}


@pytest.fixture(scope="module")
def taking_proxy(start_proxy: StartProxy, redis_server: RedisServer) -> Proxy:
    """A proxy of two workers on Redis, which takes the field over."""
    settings = {"parallel_limits": {"take_over_key_limit": True}}
    return start_proxy(workers=2, redis_port=redis_server.port, litellm_settings=settings)


def litellms_counters(redis_server: RedisServer, api_key: str) -> list[str]:
    """Return where LiteLLM's limiter counts the requests in flight of `api_key`."""
    hashed = hashlib.sha256(api_key.encode()).hexdigest()
    return [str(name) for name in redis_server.client.keys(f"*{hashed}*:max_parallel_requests*")]


async def test_the_field_holds_over_all_workers(taking_proxy: Proxy, provider: Provider) -> None:
    """A key with 2 in its own field has 2 in flight, and the third is refused by us, in our words."""
    seen = await burst(taking_proxy, provider, [Ask(key(max_parallel_requests=2))] * 5)
    assert (seen.held, seen.statuses) == (2, {200: 2, 429: 3})
    assert {refusal.headers[NAME] for refusal in seen.refusals} == {"api_key"}
    assert "'api_key' is full: 2 of 2 in flight" in seen.refusals[0].json()["error"]["message"]


async def test_the_metadata_comes_before_the_field(taking_proxy: Proxy, provider: Provider) -> None:
    """A key with 3 in its metadata and 1 in its field has 3 in flight."""
    one = key(max_parallel_requests=1, metadata={"max_parallel_requests": 3})
    seen = await burst(taking_proxy, provider, [Ask(one)] * 4)
    assert (seen.held, seen.statuses) == (3, {200: 3, 429: 1})


@pytest.mark.parametrize(
    ("proxy_name", "counted"), [("taking_proxy", False), ("redis_proxy", True)], ids=["ours", "LiteLLM's"]
)
async def test_litellm_counts_no_request_of_ours(
    request: pytest.FixtureRequest,
    provider: Provider,
    redis_server: RedisServer,
    proxy_name: str,
    counted: bool,  # noqa: FBT001 (pytest's)
) -> None:
    """LiteLLM keeps a count in Redis of what it enforces, and none of what it has left to us."""
    proxy: Proxy = request.getfixturevalue(proxy_name)
    one = key(max_parallel_requests=2)
    async with proxy.http(one) as client, client.stream("POST", "/v1/chat/completions", json=HALF) as answer:
        assert answer.status_code == 200
        assert bool(litellms_counters(redis_server, one)) is counted
        ours = [scope["name"] for scope in proxy.status()["scopes"]]
        assert ("api_key" in ours) is not counted
    provider.open_gate(caller(one))
    await proxy.settled()


async def test_who_leaves_frees_the_field(taking_proxy: Proxy, provider: Provider) -> None:
    """A key with 1 whose clients leave in the middle of their streams has its slot again each time."""
    one = key(max_parallel_requests=1)
    for _ in range(3):
        async with (
            taking_proxy.http(one) as client,
            client.stream("POST", "/v1/chat/completions", json=HALF) as answer,
        ):
            assert answer.status_code == 200
            await provider.holds(1, caller=caller(one))
            refusal = await Ask(one, "openai/ok").send(taking_proxy)
            assert refusal.headers[NAME] == "api_key"
        provider.open_gate(caller(one))  # LiteLLM 1.80 reads a stream to its end after its client has left
        await taking_proxy.settled()
        provider.close_gate(caller(one))
    assert (await Ask(one, "openai/ok").send(taking_proxy)).status_code == 200


async def test_a_refusal_leaves_litellms_requests_a_minute_alone(
    taking_proxy: Proxy, provider: Provider
) -> None:
    """With 2 a minute and 1 at a time: one is answered, refusals of ours cost nothing, then one more."""
    one = key(max_parallel_requests=1, rpm_limit=2)
    seen = await burst(taking_proxy, provider, [Ask(one)] * 4)
    assert seen.statuses == {200: 1, 429: 3}
    await taking_proxy.settled()
    after = [await Ask(one, "openai/ok").send(taking_proxy) for _ in range(2)]
    assert [answer.status_code for answer in after] == [200, 429]
    assert NAME not in after[1].headers
