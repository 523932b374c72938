"""Calls within one request: a fallback's, a nested one's, and those that come without a request."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from fastapi import HTTPException

from litellm_parallel_limits import UserAPIKeyAuth
from litellm_parallel_limits.admission import Admission
from litellm_parallel_limits.gate import Gate
from litellm_parallel_limits.hold_times import HoldTimes
from litellm_parallel_limits.incoming import Message, Receive, Send
from litellm_parallel_limits.limiter import Limiter
from litellm_parallel_limits.middleware import HolderMiddleware
from litellm_parallel_limits.plugin import ParallelLimits
from litellm_parallel_limits.policy import Policy
from litellm_parallel_limits.records import Found
from litellm_parallel_limits.routing import Routing
from litellm_parallel_limits.stores.memory import MemoryStore

URL = "http://proxy/v1/chat/completions"
KEY = UserAPIKeyAuth(
    api_key="sk-plugin",
    metadata={
        "max_parallel_requests": 1,
        "model_max_parallel_requests": {"small": 1, "large": 1, "closed": 0},
    },
)
FREE = UserAPIKeyAuth(api_key="sk-free", metadata={"model_max_parallel_requests": {"closed": 0}})


async def no_records(_: object, __: object) -> Found:
    """Know nothing more of a call."""
    return {}


def plugin(limiter: Callable[[], Limiter]) -> ParallelLimits:
    """Return the plugin of a proxy without a router."""
    gate = Gate(limiter, HoldTimes())
    policy = Policy()
    return ParallelLimits(
        Admission(lambda: policy, gate),
        Routing(lambda: policy, gate),
        router=lambda: None,
        look_up=no_records,
    )


class Proxy:
    """What LiteLLM does around the plugin."""

    def __init__(self) -> None:
        self.limiter = Limiter(MemoryStore(ttl=30), ttl=30)
        self.plugin = plugin(lambda: self.limiter)
        self.sent: list[Message] = []

    async def call(self, model: str, *, auth: UserAPIKeyAuth = KEY, url: str | None = URL) -> None:
        """Run the pre-call hook; a nested call knows no URL."""
        data = {"model": model, **({"proxy_server_request": {"url": url, "body": {}}} if url else {})}
        await self.plugin.async_pre_call_hook(auth, None, data, "acompletion")

    async def in_flight(self) -> dict[str, int]:
        """Return how many slots are in use, by limit and model."""
        holdings = (await self.limiter.snapshot()).holdings
        names = [dict(holding.scope.identities).get("model", holding.scope.limit) for holding in holdings]
        return {name: names.count(name) for name in names}

    async def request(self, work: Callable[[], Awaitable[None]], *, status: int = 200) -> dict[str, str]:
        """Serve one HTTP request that does `work`; return the headers of its answer."""

        async def app(_: Message, __: Receive, send: Send) -> None:
            await work()
            await send({"type": "http.response.start", "status": status, "headers": []})
            await send({"type": "http.response.body"})

        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        async def receive() -> Message:
            return {"type": "http.request"}

        await HolderMiddleware(app)({"type": "http", "path": "/v1/chat/completions"}, receive, send)
        return {name.decode(): value.decode() for name, value in sent[0]["headers"]}


@pytest.fixture
def proxy() -> Proxy:
    """Return a proxy."""
    return Proxy()


async def test_fallback_takes_the_place_of_the_model_before_it(proxy: Proxy) -> None:
    """When LiteLLM runs its hooks again for another model, the slots are where the call ends up."""

    async def work() -> None:
        await proxy.call("small")
        await proxy.call("large")
        assert await proxy.in_flight() == {"api_key": 1, "large": 1}

    await proxy.request(work)
    assert await proxy.in_flight() == {}


async def test_nested_call_takes_no_slot_twice(proxy: Proxy) -> None:
    """A call within a call takes a slot only where the request has none, and the outer one keeps its own."""

    async def work() -> None:
        await proxy.call("small")
        await proxy.call("large", url=None)
        await proxy.call("small", url=None)
        assert await proxy.in_flight() == {"api_key": 1, "small": 1, "large": 1}

    await proxy.request(work)
    assert await proxy.in_flight() == {}


async def test_nested_refusal_is_not_the_requests(proxy: Proxy) -> None:
    """The answer of a request tells of its own limits, not of those of a call nested in it."""

    async def work() -> None:
        await proxy.call("small")
        with pytest.raises(HTTPException):
            await proxy.call("closed", url=None)

    headers = await proxy.request(work)
    assert "x-parallel-limit-reason" not in headers
    assert headers["x-ratelimit-api_key-limit-max_parallel_requests"] == "1"


@pytest.mark.parametrize("status", [200, 500])
async def test_fallback_without_limits_tells_nothing_of_the_refusal(proxy: Proxy, status: int) -> None:
    """What is told of a refused model goes with it."""

    async def work() -> None:
        with pytest.raises(HTTPException):
            await proxy.call("closed", auth=FREE)
        await proxy.call("open", auth=FREE)

    assert await proxy.request(work, status=status) == {}


async def test_request_that_meets_no_limit_asks_no_store(proxy: Proxy) -> None:
    """Where no limit applies there is not even a limiter."""

    def unexpected() -> Limiter:
        raise AssertionError

    await plugin(unexpected).async_pre_call_hook(FREE, None, {"model": "open"}, "acompletion")


async def test_call_without_a_request_ends_with_its_task(proxy: Proxy) -> None:
    """What comes in without HTTP holds its slots until its task is done; further calls of it share them."""

    async def work() -> dict[str, int]:
        await proxy.call("small", url=None)
        await proxy.call("small", url=None)
        return await proxy.in_flight()

    assert await asyncio.create_task(work()) == {"api_key": 1, "small": 1}
    await asyncio.sleep(0)  # lets the task's callbacks run
    assert await proxy.in_flight() == {}


async def test_request_for_a_crowd_of_models_is_a_mistake(proxy: Proxy) -> None:
    """A request that names more models than anybody would is refused before anything is counted."""
    with pytest.raises(HTTPException) as refused:
        await proxy.call(",".join(f"m{number}" for number in range(33)))
    assert refused.value.status_code == 400
    assert await proxy.in_flight() == {}


async def test_two_nested_calls_do_not_take_from_one_another(proxy: Proxy) -> None:
    """A nested call that describes some request of its own is not the request run again."""

    async def work() -> None:
        await proxy.call("small", url="http://localhost/sampling")
        await proxy.call("large", url="http://localhost/sampling")
        assert await proxy.in_flight() == {"api_key": 1, "small": 1, "large": 1}

    await proxy.request(work)
    assert await proxy.in_flight() == {}
