"""The ways in which a request can end."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import httpx

from tests.rig.config import RETRIES
from tests.rig.identities import caller, key
from tests.rig.ledger import Count
from tests.rig.polling import until
from tests.rig.provider import Provider
from tests.rig.proxy import Proxy
from tests.rig.routes import Route

FAIL = "x-rig-fail"
LAST_EVENTS = ("data: [DONE]", '"type":"response.completed"', "event: message_stop")
ONE = {"max_parallel_requests": 1, "model_max_parallel_requests": {"*": 1}}


@dataclass(frozen=True)
class Caller:
    """Somebody at a route who may have one request in flight, of each model and of all."""

    route: Route
    streams: bool
    provider: Provider
    client: httpx.AsyncClient
    name: str

    @classmethod
    @asynccontextmanager
    async def at(
        cls, proxy: Proxy, provider: Provider, route: Route, *, streams: bool
    ) -> AsyncIterator[Caller]:
        """Yield a new caller of `proxy`."""
        api_key = key(metadata=ONE)
        async with proxy.http(api_key) as client:
            yield cls(route, streams, provider, client, caller(api_key))

    async def ask(self, model: str = "", fail: str = "", **fields: object) -> httpx.Response:
        """Send a request and read the whole answer."""
        model = model or self.route.upstream("ok")
        body = self.route.request_to(model, stream=self.streams, **fields)
        return await self.client.post(self.route.path, json=body, headers={FAIL: fail} if fail else {})

    async def must_end(self, status: int, model: str = "", fail: str = "", **fields: object) -> None:
        """Send a request that is to end with `status`."""
        response = await self.ask(model, fail, **fields)
        assert response.status_code == status, response.text
        assert is_error(response.text) == (status != 200), response.text

    async def must_fail(self, reason: str, model: str = "", fail: str = "") -> None:
        """Send a request that is to fail for `reason`, with a status or in an opened stream."""
        response = await self.ask(model, fail)
        assert is_error(response.text), response.text
        assert reason in response.text

    async def is_admitted(self) -> bool:
        """Whether a request is answered, rather than refused by the limit."""
        response = await self.ask()
        assert response.status_code in {200, 429}, response.text
        return not is_error(response.text)

    @asynccontextmanager
    async def asking(self, model: str) -> AsyncIterator[asyncio.Task[httpx.Response]]:
        """Have a request at the provider during the block, and leave at its end."""
        task = asyncio.create_task(self.ask(model))
        await self.provider.holds(1, caller=self.name)
        try:
            yield task
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    @asynccontextmanager
    async def reading(self, model: str) -> AsyncIterator[AsyncIterator[str]]:
        """Be in the middle of a stream, of which the further lines are yielded; leave at the block's end."""
        body = self.route.request_to(model, stream=True)
        async with (
            self.client.stream("POST", self.route.path, json=body) as response,
            aclosing(_lines(response)) as lines,
        ):
            async for line in lines:
                if line.startswith("data:"):
                    break
            yield lines

    @contextmanager
    def gate_open(self) -> Iterator[None]:
        """Let the provider go on with what it holds for this caller."""
        self.provider.open_gate(self.name)
        try:
            yield
        finally:
            self.provider.close_gate(self.name)

    def count(self) -> Count:
        """Return what the provider counted of this caller."""
        return self.provider.count(caller=self.name)


async def _lines(response: httpx.Response) -> AsyncGenerator[str, None]:
    async for line in response.aiter_lines():
        yield line


def is_error(text: str) -> bool:
    """Whether an answer, or an event of it, is an error."""
    return re.search(r'"error": ?[{"]', text) is not None


Act = Callable[[Caller], Awaitable[None]]


async def success(caller: Caller) -> None:
    """The provider answers."""
    await caller.must_end(200)


async def answered_and_gone_on(caller: Caller) -> None:
    """The client goes on when it has read the last event, without waiting for the stream's own end."""
    async with caller.reading(caller.route.upstream("ok")) as lines:
        async for line in lines:
            if any(last in line for last in LAST_EVENTS):
                break
        await caller.must_end(200)


async def provider_error(caller: Caller) -> None:
    """The provider fails."""
    await caller.must_end(500, caller.route.upstream("error-500"))


async def provider_429(caller: Caller) -> None:
    """The provider refuses."""
    await caller.must_end(429, caller.route.upstream("error-429"))


async def time_out(caller: Caller) -> None:
    """LiteLLM gives the provider up."""
    await caller.must_end(408, caller.route.routed("impatient"))


async def reset(caller: Caller) -> None:
    """The provider breaks the connection in the middle of its answer."""
    async with caller.asking(caller.route.upstream("reset")) as request:
        with caller.gate_open():
            response = await request
    assert response.status_code == 500, response.text


async def reset_mid_stream(caller: Caller) -> None:
    """The provider breaks the connection in the middle of a stream."""
    async with caller.reading(caller.route.upstream("reset")) as lines:
        with caller.gate_open():
            assert is_error("".join([line async for line in lines]))


async def refused(caller: Caller) -> None:
    """The limit is full."""
    async with caller.asking(caller.route.upstream("gated")) as request:
        await caller.must_fail("is full: 1 of 1 in flight")
        with caller.gate_open():
            assert (await request).status_code == 200


async def refused_mid_stream(caller: Caller) -> None:
    """The limit is full of a request that is already being answered."""
    async with caller.reading(caller.route.upstream("gated-half")) as lines:
        await caller.must_fail("is full: 1 of 1 in flight")
        with caller.gate_open():
            assert not is_error("".join([line async for line in lines]))


async def left_waiting(caller: Caller) -> None:
    """The client leaves before the provider says anything."""
    async with caller.asking(caller.route.upstream("slow@0.5")):
        pass


async def left_before_first_byte(caller: Caller) -> None:
    """The client leaves between the headers and the first byte of the provider's answer."""
    async with caller.asking(caller.route.upstream("slow-first")):
        pass


async def left_mid_stream(caller: Caller) -> None:
    """The client leaves in the middle of a stream."""
    async with caller.reading(caller.route.upstream("slow-stream")):
        pass


async def provider_error_late(caller: Caller) -> None:
    """The provider fails when the proxy has already opened the stream."""
    await caller.must_fail("", caller.route.upstream("error-500@0.5"))


async def time_out_late(caller: Caller) -> None:
    """LiteLLM gives the provider up when it has already opened the stream."""
    await caller.must_fail("", caller.route.routed("impatient"))


async def rejected_before(caller: Caller) -> None:
    """A callback before the plugin rejects the request."""
    await caller.must_fail("rejected by before", fail="before")


async def rejected_after(caller: Caller) -> None:
    """A callback after the plugin rejects the request."""
    await caller.must_fail("rejected by after", fail="after")


async def moderated(caller: Caller) -> None:
    """Moderation rejects the request while the provider works on it."""
    await caller.must_fail("rejected by moderation", fail="moderation")


async def success_hook_raises(caller: Caller) -> None:
    """A callback raises over the provider's answer."""
    await caller.must_fail("rejected by success", fail="success")


async def unknown_model(caller: Caller) -> None:
    """Nobody has the model."""
    await caller.must_end(400, "no-such-model")


async def no_question(caller: Caller) -> None:
    """The body misses what it is about."""
    without: dict[str, Any] = {caller.route.asks: None}
    response = await caller.ask(**without)
    assert is_error(response.text)


async def no_json(caller: Caller) -> None:
    """The body is no JSON."""
    response = await caller.client.post(caller.route.path, content=b'{"model": ')
    assert response.status_code == 400, response.text


async def cached(caller: Caller) -> None:
    """LiteLLM answers from its cache."""

    async def is_cached() -> bool:
        before = caller.count().total
        await caller.must_end(200, cache={"use-cache": True})
        return caller.count().total == before

    await until(is_cached, 5, caller.count)


async def retried(caller: Caller) -> None:
    """LiteLLM asks the provider two more times."""
    before = caller.count().total
    await caller.must_end(500, caller.route.routed("stubborn"))
    assert caller.count().total >= before + 1 + RETRIES


async def fell_back(caller: Caller) -> None:
    """LiteLLM asks another model."""
    await caller.must_end(200, caller.route.routed("flaky"))


async def several_models(caller: Caller) -> None:
    """One request asks two models."""
    await caller.must_end(200, f"{caller.route.upstream('ok')},{caller.route.upstream('ok:other')}")
