"""No way that LiteLLM's own router goes leads round a limit."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from litellm_parallel_limits.admission import Admission
from litellm_parallel_limits.gate import Gate
from litellm_parallel_limits.hold_times import HoldTimes
from litellm_parallel_limits.incoming import Message, Receive, Send
from litellm_parallel_limits.limiter import Limiter
from litellm_parallel_limits.middleware import HolderMiddleware
from litellm_parallel_limits.models import asking_for
from litellm_parallel_limits.plugin import ParallelLimits
from litellm_parallel_limits.policy import Policy
from litellm_parallel_limits.records import Found
from litellm_parallel_limits.routing import Routing
from litellm_parallel_limits.sources import Call
from litellm_parallel_limits.stores.memory import MemoryStore
from tests.litellm_objects import auth, imported, warnings_of_its_own

PATH = "/v1/chat/completions"
FAILS = "litellm.InternalServerError"


def entry(name: str, model: str, one: str, answer: str = "ok", **says: int) -> dict[str, Any]:
    """Return a deployment that answers by itself, or fails."""
    params = {"model": f"openai/{model}", "api_key": "unused", "mock_response": answer}
    info = {"id": one, **({"parallel_limits": says} if says else {})}
    return {"model_name": name, "litellm_params": params, "model_info": info}


MODELS = [
    entry("bad", "x", "bad1", FAILS),
    entry("bad", "y", "bad2", FAILS),
    entry("good", "g1", "good1", model_max_parallel_requests=1),
    entry("good", "g2", "good2", model_max_parallel_requests=1),
    entry("solo", "s1", "solo1", max_parallel_requests=1),
    entry("dear", "d1", "dear1", model_max_parallel_requests=1),
    entry("dear", "d1", "dear2", model_max_parallel_requests=1),
    entry("openai/*", "*", "any"),
]


class Proxy:
    """LiteLLM's router with our plugin, and what of the proxy is around them."""

    def __init__(self) -> None:
        self.limiter = Limiter(MemoryStore(ttl=30), ttl=30)
        gate, policy = Gate(lambda: self.limiter, HoldTimes()), Policy()
        with warnings_of_its_own():
            self.router = imported("litellm").Router(model_list=MODELS, num_retries=0)
        self.plugin = ParallelLimits(
            Admission(lambda: policy, gate),
            Routing(lambda: policy, gate),
            router=lambda: self.router,
            look_up=_no_records,
        )
        self.of = auth(api_key="sk-dodger", metadata={"max_parallel_requests": 1})

    async def scopes(self) -> dict[str, int]:
        """Return how many slots are in use, by limit."""
        names = [holding.scope.limit for holding in (await self.limiter.snapshot()).holdings]
        return {name: names.count(name) for name in names}

    async def ask(self, *, hooked: bool = True, **body: Any) -> dict[str, int]:
        """Return what a request holds when it has been answered, before it ends."""
        seen: dict[str, int] = {}

        async def app(_: Message, __: Receive, send: Send) -> None:
            data = {
                "messages": [{"role": "user", "content": "hi"}],
                "litellm_call_id": "one",
                "metadata": {"user_api_key_auth": self.of},
                "proxy_server_request": {"url": f"http://proxy{PATH}", "body": {}},
                **body,
            }
            if hooked:
                await self.plugin.async_pre_call_hook(self.of, None, data, "acompletion")
            await self.router.acompletion(**data)
            seen.update(await self.scopes())

        async def receive() -> Message:
            return {"type": "http.request"}

        async def send(_: Message) -> None:
            pass

        await HolderMiddleware(app)({"type": "http", "path": PATH}, receive, send)
        return seen


async def _no_records(_: object, __: object) -> Found:
    return {}


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """A proxy whose router asks our plugin."""
    litellm = imported("litellm")
    before = litellm.callbacks
    made = Proxy()
    litellm.callbacks = [made.plugin]
    yield made
    litellm.callbacks = before


@pytest.mark.parametrize(
    ("body", "held"),
    [
        pytest.param({"model": "good"}, {"api_key": 1, "model": 1}, id="asked for"),
        pytest.param({"model": "bad", "fallbacks": ["good"]}, {"api_key": 1, "model": 1}, id="fallback"),
        pytest.param(
            {"model": "bad", "fallbacks": [{"model": "good", "litellm_call_id": "other"}]},
            {"api_key": 1, "model": 1},
            id="fallback under another id",
        ),
        pytest.param(
            {"model": "bad", "fallbacks": ["good1"]}, {"api_key": 1, "model": 1}, id="fallback to an id"
        ),
        pytest.param(
            {"model": "bad", "fallbacks": ["solo1"]}, {"api_key": 1, "deployment": 1}, id="to an only one"
        ),
        pytest.param(
            {"model": "openai/d1", "specific_deployment": True},
            {"api_key": 1, "model": 1},
            id="what is behind",
        ),
        pytest.param(
            {"model": "bad", "fallbacks": ["solo"], "hooked": False},
            {"api_key": 1, "deployment": 1},
            id="without pre-call hooks",
        ),
    ],
)
async def test_answer_is_counted_where_it_comes_from(
    proxy: Proxy, body: dict[str, Any], held: dict[str, int]
) -> None:
    """Whatever way the router goes, the request holds a slot of what answers it."""
    assert await proxy.ask(**body) == held
    assert await proxy.scopes() == {}


async def test_every_model_of_a_list_goes_on_by_itself(proxy: Proxy) -> None:
    """Where all of a list fall back to one model, as many as have room there are answered by it."""
    answered: list[str] = []

    async def app(_: Message, __: Receive, ___: Send) -> None:
        data = {"proxy_server_request": {"url": f"http://proxy{PATH}"}, "litellm_call_id": "one"}
        asked = {**data, "model": "bad,bad,bad"}
        await proxy.plugin.async_pre_call_hook(proxy.of, None, asked, "acompletion")

        async def one() -> None:
            with suppress(imported("litellm").InternalServerError):
                messages = [{"role": "user", "content": "hi"}]
                await proxy.router.acompletion(**data, model="bad", messages=messages, fallbacks=["good"])
                answered.append("good")

        await asyncio.gather(one(), one(), one())

    await HolderMiddleware(app)({"type": "http", "path": PATH}, _nothing, _nothing)
    assert answered == ["good"]
    assert await proxy.scopes() == {}


@pytest.mark.parametrize("fallback", ["good", "good1", {"model": "good", "litellm_call_id": "other"}])
async def test_full_fallback_does_not_answer(proxy: Proxy, fallback: object) -> None:
    """A fallback that is full is not gone to, however it is named, and nothing stays held."""
    good = asking_for(Call(), "good", "good", proxy.router)
    await proxy.limiter.admit(Policy().limits(good))
    with pytest.raises(imported("litellm").InternalServerError):
        await proxy.ask(model="bad", fallbacks=[fallback])
    assert await proxy.scopes() == {"model": 1}


async def test_refused_route_without_hooks_is_not_answered_by_its_fallback(proxy: Proxy) -> None:
    """Where the router refused the caller's key, the next model is asked for with the same key."""
    held, gate = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async def app(_: Message, __: Receive, ___: Send) -> None:
            data = {"model": "good", "proxy_server_request": {"url": f"http://proxy{PATH}"}}
            await proxy.plugin.async_pre_call_hook(proxy.of, None, data, "acompletion")
            held.set()
            await gate.wait()

        await HolderMiddleware(app)({"type": "http", "path": PATH}, _nothing, _nothing)

    holding = asyncio.create_task(hold())
    await held.wait()
    with pytest.raises(imported("litellm").RateLimitError):
        await proxy.ask(model="bad", fallbacks=["solo"], hooked=False)
    gate.set()
    await holding
    assert await proxy.scopes() == {}


async def _nothing(*_: object) -> Any:
    return {"type": "http.request"}
