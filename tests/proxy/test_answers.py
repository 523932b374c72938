"""What a client is told, on every route."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import openai
import pytest
from anthropic import RateLimitError as AnthropicRateLimitError

from tests.rig.burst import Ask, one_in_flight
from tests.rig.identities import caller, key
from tests.rig.litellm_version import FALLBACKS, MESSAGES_ERRORS, needs
from tests.rig.provider import Provider
from tests.rig.proxy import Proxy
from tests.rig.routes import ROUTES, Route

pytestmark = pytest.mark.proxy

STREAMED = [
    (name, stream)
    for name, route in ROUTES.items()
    for stream in (False, True)
    if route.streams or not stream
]


async def post(proxy: Proxy, one: str, route: Route, body: dict[str, Any]) -> httpx.Response:
    """Return the whole answer."""
    async with proxy.http(one) as client:
        return await client.post(route.path, json=body)


def single(**record: object) -> str:
    """Return a key that admits one request at a time."""
    return key(metadata={"max_parallel_requests": 1}, key_alias="chatbot", **record)


@pytest.mark.parametrize(("name", "stream"), STREAMED)
async def test_a_refusal_explains_itself(proxy: Proxy, provider: Provider, name: str, stream: bool) -> None:  # noqa: FBT001
    """A refused request is told the limit, how many are in flight of how many, and when to come back."""
    one = single()
    async with one_in_flight(proxy, provider, one):
        answer = await post(proxy, one, ROUTES[name], ROUTES[name].request("ok", stream=stream))
    assert answer.status_code == 429
    seconds = answer.headers["retry-after"]
    message = answer.json()["error"]["message"]
    assert message.endswith(
        f"Parallel request limit 'api_key' is full: 1 of 1 in flight (key chatbot). Retry after {seconds} s."
    )
    assert 1 <= int(seconds) <= 60
    assert 0 < int(answer.headers["retry-after-ms"]) <= 60_000
    assert answer.headers["rate_limit_type"] == "max_parallel_requests"
    assert answer.headers["x-parallel-limit-name"] == "api_key"
    assert answer.headers["x-parallel-limit-reason"] == "limit"
    assert provider.count(caller=caller(one)).peak == 1


@pytest.mark.parametrize(("name", "stream"), STREAMED)
async def test_an_admitted_request_is_told_its_room(proxy: Proxy, name: str, stream: bool) -> None:  # noqa: FBT001
    """The number and the room left stand in the headers of every answer, streams included."""
    one = key(metadata={"max_parallel_requests": 3})
    answer = await post(proxy, one, ROUTES[name], ROUTES[name].request("ok", stream=stream))
    assert answer.status_code == 200
    assert answer.headers["x-ratelimit-api_key-limit-max_parallel_requests"] == "3"
    assert answer.headers["x-ratelimit-api_key-remaining-max_parallel_requests"] == "2"


async def test_a_refusal_has_the_shape_of_its_route(proxy: Proxy, provider: Provider) -> None:
    """OpenAI's routes refuse in OpenAI's shape, /v1/messages in Anthropic's, or in OpenAI's before 1.106."""
    one = single()
    async with one_in_flight(proxy, provider, one):
        chat = await post(proxy, one, ROUTES["chat"], ROUTES["chat"].request("ok"))
        messages = await post(proxy, one, ROUTES["messages"], ROUTES["messages"].request("ok"))
    assert {"message", "type", "param", "code"} <= chat.json()["error"].keys()
    if MESSAGES_ERRORS:
        assert messages.json()["type"] == "error"
        assert messages.json()["error"]["type"] == "rate_limit_error"
    else:
        assert messages.json()["error"].keys() == chat.json()["error"].keys()


async def test_the_sdks_know_a_refusal_when_they_see_one(proxy: Proxy, provider: Provider) -> None:
    """The OpenAI and Anthropic clients raise their own RateLimitError."""
    one = single()
    chat, messages = proxy.async_openai(one), proxy.async_anthropic(one)
    async with one_in_flight(proxy, provider, one), chat, messages:
        with pytest.raises(openai.RateLimitError):
            await chat.chat.completions.create(
                model="openai/ok", messages=[{"role": "user", "content": "hi"}]
            )
        with pytest.raises(AnthropicRateLimitError):
            await messages.messages.create(
                model="anthropic/ok", max_tokens=9, messages=[{"role": "user", "content": "hi"}]
            )


async def test_the_openai_client_comes_back_by_itself(proxy: Proxy, provider: Provider) -> None:
    """A client that is left to retry waits as long as it was told, and is answered."""
    one = single()
    async with proxy.async_openai(one, max_retries=5) as client:
        asked = [
            asyncio.create_task(
                client.chat.completions.create(
                    model="openai/slow@0.3", messages=[{"role": "user", "content": "hi"}]
                )
            )
            for _ in range(2)
        ]
        answers = await asyncio.gather(*asked)
    assert len(answers) == 2
    assert provider.count(caller=caller(one)).peak == 1


async def test_retry_after_is_measured(proxy: Proxy, provider: Provider) -> None:
    """Who is refused is told to wait about as long as a slot of its scope was held before."""
    one = single()
    assert (await Ask(one, "openai/slow@2.5").send(proxy)).status_code == 200
    async with one_in_flight(proxy, provider, one):
        refused = await Ask(one, "openai/ok").send(proxy)
    assert refused.headers["retry-after"] in {"3", "4"}
    assert 2500 <= int(refused.headers["retry-after-ms"]) <= 4000


async def test_a_refusal_costs_no_rpm(proxy: Proxy, provider: Provider) -> None:
    """LiteLLM's own limiter does not count a request that was refused here."""
    one = single(rpm_limit=2)
    async with one_in_flight(proxy, provider, one):
        refused = [(await Ask(one, "openai/ok").send(proxy)) for _ in range(5)]
    assert {answer.headers["x-parallel-limit-name"] for answer in refused} == {"api_key"}
    assert (await Ask(one, "openai/ok").send(proxy)).status_code == 200


async def test_of_two_rooms_the_smaller_is_told(proxy: Proxy) -> None:
    """Where LiteLLM limits the key itself, its header stays if it has less room, and goes if it has more."""
    roomier, tighter = (
        key(max_parallel_requests=native, metadata={"max_parallel_requests": 5}) for native in (9, 2)
    )
    seen = [await Ask(one, "openai/ok").send(proxy) for one in (roomier, tighter)]
    name = "x-ratelimit-api_key-limit-max_parallel_requests"
    assert [answer.headers.get_list(name) for answer in seen] == [["5"], ["2"]]


@needs(FALLBACKS)
async def test_a_refused_model_is_answered_by_its_fallback(proxy: Proxy, provider: Provider) -> None:
    """LiteLLM tries the router's fallbacks of a model that is full; the slot is where the call ends up."""
    one = key(metadata={"model_max_parallel_requests": {"flaky": 0, "steady": 1}})
    answer = await Ask(one, "flaky").send(proxy)
    assert answer.status_code == 200
    assert answer.headers["x-ratelimit-model_per_key-limit-max_parallel_requests"] == "1"
    assert "x-parallel-limit-reason" not in answer.headers
    assert provider.count(model="ok", caller=caller(one)).total == 1
    await proxy.settled()
