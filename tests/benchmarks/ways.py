"""What is compared: how a request is limited, each way as LiteLLM's proxy calls it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from redis.asyncio import Redis

from litellm_parallel_limits.incoming import App, Message, Receive, Send
from litellm_parallel_limits.middleware import HolderMiddleware
from tests.benchmarks.inside import MODEL, PLENTY, Inside

CALL_TYPE = "acompletion"
PATH = "/v1/chat/completions"
HASH = "ab" * 32

START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]}
BODY = {"type": "http.response.body", "body": b"{}"}

NO_OP = "return 1"


@dataclass(frozen=True)
class Asking:
    """A request as LiteLLM's hooks see it."""

    auth: Any
    data: dict[str, Any]


@dataclass(frozen=True)
class Way:
    """What is done `before` a request goes to its provider and `after` that, and what is `around` it all.

    `record` holds the fields of the auth object that its key brings.
    """

    name: str
    before: Callable[[Asking], Awaitable[None]]
    after: Callable[[Asking], Awaitable[None]]
    record: dict[str, Any]
    model: str = MODEL
    around: Callable[[App], App] = lambda app: app

    async def request(self, asking: Asking, hold: Callable[[], Awaitable[None]]) -> float:
        """Make a request that holds what it is given for a moment; return for how many seconds it waited."""
        waited = 0.0

        async def app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
            nonlocal waited
            await receive()
            await self.before(asking)
            waited = time.perf_counter() - began
            await hold()
            waited -= time.perf_counter()
            await self.after(asking)
            await send(dict(START))
            await send(dict(BODY))

        scope = {"type": "http", "method": "POST", "path": PATH, "headers": [(b"host", b"proxy")]}
        wrapped = self.around(app)
        began = time.perf_counter()
        await wrapped(scope, _receive, _send)
        return waited + time.perf_counter()

    def asking(self) -> Asking:
        """Return another request."""
        from litellm.proxy._types import UserAPIKeyAuth  # noqa: PLC0415 (takes long, and not every part needs it)

        auth = UserAPIKeyAuth(api_key=HASH, token=HASH, key_alias="key", **self.record)
        body = {"model": self.model, "messages": [{"role": "user", "content": "Hello?"}]}
        told = {"url": f"http://proxy{PATH}", "method": "POST", "headers": {}, "body": body}
        data = {**body, "litellm_call_id": uuid4().hex, "proxy_server_request": told}
        return Asking(auth, {**data, "metadata": {"user_api_key": HASH, "user_api_key_auth": auth}})


def nothing() -> Way:
    """Return the way that limits nothing: what measuring costs."""
    return Way("nothing", _pass, _pass, FOUR)


def bare(client: Redis) -> Way:
    """Return the way of one call of Redis that does nothing."""
    script = client.register_script(NO_OP)

    async def call(_: Asking) -> None:
        await script(["key"], ["argument"])

    return Way("bare call", call, _pass, FOUR)


def theirs(proxy: Inside) -> Way:
    """Return LiteLLM's own way, with one limit: its hook before the call, and the one after its success."""
    from litellm.types.utils import ModelResponse  # noqa: PLC0415 (takes long)

    async def before(asking: Asking) -> None:
        await proxy.theirs.async_pre_call_hook(asking.auth, proxy.keys, asking.data, CALL_TYPE)

    async def after(asking: Asking) -> None:
        await proxy.theirs.async_post_call_success_hook(asking.data, asking.auth, ModelResponse())

    return Way("LiteLLM", before, after, {"max_parallel_requests": PLENTY})


def ours(proxy: Inside, *, limited: bool = True) -> Way:
    """Return our way, with four limits or none: middleware, and all hooks that LiteLLM calls."""
    entries = proxy.router.get_model_list(MODEL if limited else "unlimited")

    async def before(asking: Asking) -> None:
        await proxy.ours.async_pre_call_hook(asking.auth, proxy.keys, asking.data, CALL_TYPE)
        messages = asking.data["messages"]
        [entry] = await proxy.ours.async_filter_deployments(
            asking.data["model"], entries, messages, asking.data, None
        )
        chosen = {**asking.data, "model_info": entry["model_info"]}
        await proxy.ours.async_pre_call_deployment_hook(chosen, CALL_TYPE)

    name, record, model = ("ours", FOUR, MODEL) if limited else ("ours, no limit", {}, "unlimited")
    return Way(name, before, _pass, record, model, around=HolderMiddleware)


FOUR = {
    "user_id": "ann",
    "team_id": "research",
    "metadata": {"max_parallel_requests": PLENTY, "user_max_parallel_requests": PLENTY},
    "team_metadata": {"team_max_parallel_requests": PLENTY},
}
"""A record with the limits of a key, a user and a team: with that of the model they are four."""


async def _pass(_: Asking) -> None:
    pass


async def _receive() -> Message:
    return {"type": "http.request", "body": b"{}", "more_body": False}


async def _send(_: Message) -> None:
    pass
