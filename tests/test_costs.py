"""What a request costs does not grow unnoticed: calls of functions are counted, and no time is measured.

`python -m tests.benchmarks` tells what that is in microseconds.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest
from litellm import Router

from litellm_parallel_limits import UserAPIKeyAuth
from litellm_parallel_limits.admission import Admission
from litellm_parallel_limits.gate import Gate
from litellm_parallel_limits.hold_times import HoldTimes
from litellm_parallel_limits.holder import current_holder
from litellm_parallel_limits.incoming import Message, Receive, Send
from litellm_parallel_limits.limiter import Limiter
from litellm_parallel_limits.middleware import HolderMiddleware
from litellm_parallel_limits.plugin import ParallelLimits
from litellm_parallel_limits.policy import OperatorLimit, Policy
from litellm_parallel_limits.records import Found
from litellm_parallel_limits.routing import Routing
from litellm_parallel_limits.stores.memory import MemoryStore

LIMITED = UserAPIKeyAuth(
    api_key="sk-limited",
    user_id="ann",
    team_id="research",
    metadata={"max_parallel_requests": 9, "user_max_parallel_requests": 9},
    team_metadata={"team_max_parallel_requests": 9},
)
FREE = UserAPIKeyAuth(api_key="sk-free")
POLICY = Policy((OperatorLimit("pool", 9, models=("gpt-4o",)),))
ROUTER = Router(
    model_list=[
        {"model_name": name, "litellm_params": {"model": f"openai/{name}", "api_key": "unused"}}
        for name in ("gpt-4o", "gpt-4")
    ]
)
ENTRIES = {entry["model_name"]: [entry] for entry in ROUTER.model_list}
PATH = "/v1/chat/completions"


async def no_records(_: object, __: object) -> Found:
    """Know nothing more of a call."""
    return {}


class Proxy:
    """What LiteLLM does around the plugin, in a worker that counts alone."""

    def __init__(self) -> None:
        self.limiter = Limiter(MemoryStore(ttl=30), ttl=30)
        gate = Gate(lambda: self.limiter, HoldTimes())
        self.plugin = ParallelLimits(
            Admission(lambda: POLICY, gate),
            Routing(lambda: POLICY, gate),
            router=lambda: ROUTER,
            look_up=no_records,
        )
        self.held = 0

    async def request(self, auth: UserAPIKeyAuth, model: str) -> None:
        """Serve a request through all hooks."""

        async def app(_: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
            await receive()
            told = {"url": f"http://proxy{PATH}", "body": {"model": model}}
            data: dict[str, Any] = {"litellm_call_id": "1", "model": model, "proxy_server_request": told}
            await self.plugin.async_pre_call_hook(auth, None, data, "acompletion")
            data["metadata"] = {"user_api_key_auth": auth}
            [entry] = await self.plugin.async_filter_deployments(model, ENTRIES[model], None, data)
            await self.plugin.async_pre_call_deployment_hook(entry | data, "acompletion")
            holder = current_holder.get()
            assert holder is not None
            self.held = len(holder.scopes)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body"})

        await HolderMiddleware(app)({"type": "http", "path": PATH}, _receive, _send)


async def _receive() -> Message:
    return {"type": "http.request"}


async def _send(_: Message) -> None:
    pass


class Count:
    """How many functions were called, of Python and of C."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, _: FrameType, event: str, __: object) -> None:
        """Take note of an event."""
        self.calls += event in {"call", "c_call"}


@contextmanager
def counted() -> Iterator[Count]:
    """Count within this context."""
    count = Count()
    sys.setprofile(count)
    try:
        yield count
    finally:
        sys.setprofile(None)


@pytest.mark.parametrize(
    ("auth", "model", "held", "most"),
    [(LIMITED, "gpt-4o", 4, 390), (FREE, "gpt-4", 0, 210)],
    ids=["four limits", "none"],
)
async def test_functions_that_a_request_calls(auth: UserAPIKeyAuth, model: str, held: int, most: int) -> None:
    """From its first byte to its last, the application's few included; the least of some requests."""
    proxy = Proxy()
    await proxy.request(auth, model)
    found = []
    for _ in range(5):
        with counted() as count:
            await proxy.request(auth, model)
        found.append(count.calls)
    assert proxy.held == held
    assert min(found) <= most, found
