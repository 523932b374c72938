"""What is counted on which route: the table of docs/reference.md, row by row."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.proxy import route_table
from tests.proxy.route_table import GATED, ROWS, Row
from tests.rig.config import config
from tests.rig.identities import CALLER, caller, key
from tests.rig.litellm_version import (
    BACKGROUND_POLLING,
    REALTIME_WITHOUT_TLS,
    RESPONSES_WEBSOCKET,
    TOOLS,
    TRANSCRIPTIONS_ERRORS,
    marks,
    needs,
)
from tests.rig.polling import until
from tests.rig.process import HOST
from tests.rig.provider import Provider
from tests.rig.provider_routes import UNNAMED
from tests.rig.proxy import Proxy
from tests.rig.redis_server import RedisServer

pytestmark = pytest.mark.proxy

POLLED = "openai/gated-half"
POLLING = {
    "responses": {
        "background_mode": {"polling_via_cache": "all", "ttl": 60, "native_background_mode": [GATED]},
    },
}
TRY_AGAIN_LATER = 1013
MCP = {"accept": "application/json, text/event-stream"}


@pytest.fixture(scope="module")
def routes_proxy(
    provider: Provider, redis_server: RedisServer, folder: Callable[[str], Path]
) -> Iterator[Proxy]:
    """A proxy with every route, on Redis."""
    settings = route_table.settings(provider.url)
    configured = config(
        provider.url, redis_port=redis_server.port, litellm_settings=POLLING, **settings
    ) | route_table.sections(provider.url)
    proxy = Proxy.start(folder("proxy"), configured, env=route_table.environment(provider.url))
    yield proxy
    proxy.stop()


def single(limit: str, model: str | None) -> str:
    """Return a key that admits one request at a time: altogether, or for `model`, without one for any."""
    metadata: dict[str, Any] = {
        "api_key": {"max_parallel_requests": 1},
        "model_per_key": {"model_max_parallel_requests": {model or "*": 1}},
    }
    return key(metadata=metadata[limit])


def scopes(proxy: Proxy) -> dict[str, dict[str, str]]:
    """Return the limits in which something is in flight, each with the identities it counts by."""
    return {scope["name"]: scope["scope"] for scope in proxy.status()["scopes"]}


@asynccontextmanager
async def open_gate(provider: Provider) -> AsyncIterator[None]:
    """Let the provider answer everybody during the block."""
    provider.open_gate()
    try:
        yield
    finally:
        provider.close_gate()


LIMITED = [
    pytest.param(row, limit, marks=marks(row.needs), id=f"{row}-{limit}")
    for row in ROWS
    for limit in ("api_key", "model_per_key")
    if row.model or limit == "api_key"
]


@pytest.mark.parametrize(("row", "limit"), LIMITED)
async def test_a_route_is_limited(routes_proxy: Proxy, provider: Provider, row: Row, limit: str) -> None:
    """A request holds its slot while the provider works; a second is refused as its route refuses."""
    async with routes_proxy.http(single(limit, row.model)) as client:
        holding = asyncio.create_task(row.ask(client))
        async with open_gate_after(provider, holding, row.provider_model):
            assert set(scopes(routes_proxy)) == {limit}
            refused = await row.ask(client)
            assert_refused(row, refused, limit)
        assert (await holding).status_code == 200, (await holding).text
        await routes_proxy.settled()
        async with open_gate(provider):
            assert (await row.ask(client)).status_code == 200
    await routes_proxy.settled()


@asynccontextmanager
async def open_gate_after(
    provider: Provider, holding: asyncio.Task[httpx.Response], model: str = "gated"
) -> AsyncIterator[None]:
    """Have a request at the provider during the block, and let it go on at its end."""

    def arrived() -> bool:
        return holding.done() or provider.count(model=model).in_flight == 1

    await until(arrived, 10, lambda: provider.count(model=model))
    assert not holding.done(), (await holding).text
    try:
        yield
    finally:
        async with open_gate(provider):
            await asyncio.wait({holding}, timeout=10)


def assert_refused(row: Row, refused: httpx.Response, limit: str) -> None:
    """The refusal says which limit is full in the place where the route's errors say what is wrong."""
    assert refused.status_code in refused_with(row), refused.text
    if refused.status_code != 429:
        return
    assert f"limit '{limit}' is full: 1 of 1 in flight" in row.message(refused)
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert refused.headers["x-parallel-limit-name"] == limit


def refused_with(row: Row) -> set[int]:
    """Return 429, and 500 where some LiteLLM makes that of any error of the route."""
    no_prisma = row.name.startswith("batches") and find_spec("prisma") is None
    old = row.name == "audio transcriptions" and not TRANSCRIPTIONS_ERRORS
    return {429, 500} if no_prisma or old else {429}


@pytest.mark.parametrize(
    "row",
    [pytest.param(row, marks=marks(row.needs), id=str(row)) for row in ROWS if row.model is None],
)
async def test_a_route_without_a_model_meets_no_limit_by_model(
    routes_proxy: Proxy, provider: Provider, row: Row
) -> None:
    """Where a request names no model, a limit on every model is none of its business."""
    async with routes_proxy.http(single("model_per_key", None)) as client, open_gate(provider):
        answer = await row.ask(client)
    assert answer.status_code == 200
    assert not [name for name in answer.headers if "model_per_key" in name]


@pytest.mark.parametrize("row", route_table.UNCOUNTED, ids=str)
async def test_a_route_is_not_limited(routes_proxy: Proxy, provider: Provider, row: Row) -> None:
    """Who may not have anything in flight is answered all the same."""
    async with routes_proxy.http(blocked()) as client, open_gate(provider):
        assert (await row.ask(client)).status_code == 200


def blocked() -> str:
    """Return a key that may have nothing in flight."""
    return key(metadata={"max_parallel_requests": 0})


async def test_looking_at_a_response_is_counted_by_no_model(routes_proxy: Proxy, provider: Provider) -> None:
    """A response's id hides its model: the key's own limit holds it, and a limit by model does not."""
    both = {"max_parallel_requests": 1, "model_max_parallel_requests": {"*": 1}}
    async with routes_proxy.http(key(metadata=both)) as client:
        async with open_gate(provider):
            made = await client.post("/v1/responses", json={"model": GATED, "input": "hi"})
        path = f"/v1/responses/{made.json()['id']}"
        holding = asyncio.create_task(client.get(path))
        async with open_gate_after(provider, holding, UNNAMED):
            assert set(scopes(routes_proxy)) == {"api_key"}
            assert (await client.get(path)).status_code == 429
        assert (await holding).status_code == 200
    await routes_proxy.settled()


@needs(BACKGROUND_POLLING)
@pytest.mark.parametrize("end", ["it is answered", "it is cancelled", "it is deleted"])
async def test_a_polled_response_is_held_until_its_work_ends(
    routes_proxy: Proxy, provider: Provider, end: str
) -> None:
    """The slot outlives the answer, whatever is done to what LiteLLM keeps of it: the provider works on."""
    body = {"model": POLLED, "input": "hi", "background": True}
    async with routes_proxy.http(single("api_key", None)) as client:
        begun = await client.post("/v1/responses", json=body)
        path = f"/v1/responses/{begun.json()['id']}"
        await provider.holds(1, model="gated-half")
        if end == "it is cancelled":
            assert (await client.post(f"{path}/cancel")).json()["status"] == "cancelled"
        if end == "it is deleted":
            assert (await client.delete(path)).is_success
        assert set(scopes(routes_proxy)) == {"api_key"}
        assert (await client.post("/v1/responses", json=body)).status_code == 429
        async with open_gate(provider):
            await routes_proxy.settled()
            assert provider.count(model="gated-half").in_flight == 0
            assert (await client.post("/v1/responses", json={**body, "background": False})).status_code == 200


@needs(BACKGROUND_POLLING)
async def test_a_polled_response_that_fails_gives_its_slot_back(
    routes_proxy: Proxy, provider: Provider
) -> None:
    """When the provider's answer breaks off, the work has ended."""
    async with routes_proxy.http(single("api_key", None)) as client:
        body = {"model": "openai/reset", "input": "hi", "background": True}
        begun = await client.post("/v1/responses", json=body)
        await provider.holds(1, model="reset")
        async with open_gate(provider):
            await routes_proxy.settled()
        path = f"/v1/responses/{begun.json()['id']}"
        assert (await client.get(path)).json()["status"] in {"failed", "completed"}  # as versions have it


@needs(BACKGROUND_POLLING)
async def test_a_client_that_polls_never_meets_its_own_slot(routes_proxy: Proxy, provider: Provider) -> None:
    """Who reads that its response is complete may send the next one."""
    async with routes_proxy.http(single("api_key", None)) as client:
        for _ in range(5):
            begun = await client.post(
                "/v1/responses", json={"model": "openai/slow@0.05", "input": "hi", "background": True}
            )
            assert begun.status_code == 200, begun.text

            async def is_complete(path: str = f"/v1/responses/{begun.json()['id']}") -> bool:
                return bool((await client.get(path)).json()["status"] == "completed")

            await until(is_complete, 5, routes_proxy.status)


@needs(REALTIME_WITHOUT_TLS)
@pytest.mark.parametrize(("limit", "path"), [("api_key", "/v1/realtime"), ("model_per_key", "/realtime")])
async def test_a_session_is_held_while_it_is_open(
    routes_proxy: Proxy, provider: Provider, limit: str, path: str
) -> None:
    """A realtime session has its slot until its websocket closes; a second is told so, and closed."""
    one = single(limit, GATED)
    async with websocket(routes_proxy, one, path) as session:
        assert json.loads(await session.recv())["type"] == "session.created"
        assert set(scopes(routes_proxy)) == {limit}
        assert provider.count(model="gated").in_flight == 1
        async with websocket(routes_proxy, one, path) as refused:
            await assert_closed(refused, limit)
        await session.send(json.dumps({"type": "session.update", "session": {}}))
        assert json.loads(await session.recv())["type"] == "session.updated"
    await routes_proxy.settled()
    async with websocket(routes_proxy, one, path) as session:
        assert json.loads(await session.recv())["type"] == "session.created"
    await routes_proxy.settled()


@needs(RESPONSES_WEBSOCKET)
async def test_a_websocket_of_responses_is_refused(routes_proxy: Proxy) -> None:
    """Where nothing may be in flight, the first request on a websocket closes it."""
    async with websocket(routes_proxy, blocked(), "/v1/responses") as session:
        await session.send(json.dumps({"type": "response.create", "model": GATED, "input": "hi"}))
        await assert_closed(session, "api_key")


def websocket(proxy: Proxy, one: str, path: str) -> connect:
    """Return a connection for a session with the gated model."""
    url = f"{proxy.url.replace('http', 'ws')}{path}?model={GATED}"
    headers = {"authorization": f"Bearer {one}", CALLER: caller(one)}
    direct = socket.create_connection((HOST, proxy.port))  # past whatever the environment says of proxies
    return connect(url, additional_headers=headers, sock=direct)


async def assert_closed(refused: ClientConnection, limit: str) -> None:
    """An event says which limit is full, and the code that it is worth another try."""
    event = json.loads(await refused.recv())
    assert event["type"] == "error"
    assert f"limit '{limit}' is full" in event["error"]["message"]
    with pytest.raises(ConnectionClosed):
        await refused.recv()
    assert refused.close_code == TRY_AGAIN_LATER


@needs(TOOLS)
async def test_a_tool_is_limited(routes_proxy: Proxy, provider: Provider) -> None:
    """A tool is counted by its key; that LiteLLM runs the hooks twice for it, costs it nothing."""
    async with routes_proxy.http(single("api_key", None)) as client:
        body = {"server_id": await server(client), "name": "gated", "arguments": {}}
        holding = asyncio.create_task(client.post("/mcp-rest/tools/call", json=body))
        async with open_gate_after(provider, holding):
            assert set(scopes(routes_proxy)) == {"api_key"}
            refused = await client.post("/mcp-rest/tools/call", json=body)
            assert refused.status_code == 429
            assert "limit 'api_key' is full: 1 of 1" in refused.json()["detail"]
            assert "retry-after" in refused.headers
        assert (await holding).status_code == 200
    await routes_proxy.settled()


@needs(TOOLS)
async def test_a_tool_is_limited_in_its_own_protocol(routes_proxy: Proxy, provider: Provider) -> None:
    """By MCP itself a refusal is the result of the tool: it failed, and says why."""
    async with routes_proxy.http(single("api_key", None)) as client:
        holding = asyncio.create_task(call_tool(client, "gated"))
        async with open_gate_after(provider, holding):
            assert set(scopes(routes_proxy)) == {"api_key"}
            refused = result(await call_tool(client, "gated"))
            assert refused["isError"]
            assert "limit 'api_key' is full: 1 of 1" in refused["content"][0]["text"]
        assert not result(await holding)["isError"]
    await routes_proxy.settled()


@needs(TOOLS)
async def test_a_tool_is_no_model(routes_proxy: Proxy) -> None:
    """What LiteLLM calls the model of a tool, no limit by model counts."""
    async with routes_proxy.http(key(metadata={"model_max_parallel_requests": {"*": 0}})) as client:
        body = {"server_id": await server(client), "name": "ok", "arguments": {}}
        assert (await client.post("/mcp-rest/tools/call", json=body)).status_code == 200


@needs(TOOLS)
@pytest.mark.parametrize("limit", ["api_key", "model_per_key"])
async def test_a_nested_call_needs_no_slot_of_its_own(
    routes_proxy: Proxy, provider: Provider, limit: str
) -> None:
    """A response whose model asks for a tool, which LiteLLM calls by itself, is one request."""
    tool = {
        "type": "mcp",
        "server_label": "rig",
        "server_url": "litellm_proxy",
        "require_approval": "never",
    }
    before = provider.count(model="ok").total
    async with routes_proxy.http(single(limit, None)) as client:
        body = {"model": "openai/calls-tool", "input": "hi", "tools": [tool]}
        answer = await client.post("/v1/responses", json=body)
    assert answer.status_code == 200, answer.text
    assert provider.count(model="ok").total == before + 1
    assert "is full" not in answer.text
    await routes_proxy.settled()


async def server(client: httpx.AsyncClient) -> str:
    """Return the id of the rig's MCP server."""
    tools = (await client.get("/mcp-rest/tools/list")).json()["tools"]
    info = tools[0]["mcp_info"]
    return str(info.get("server_id") or info["server_name"])


async def call_tool(client: httpx.AsyncClient, name: str) -> httpx.Response:
    """Call a tool of the rig's server by MCP."""
    call = {"name": f"rig-{name}", "arguments": {}}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}
    return await client.post("/mcp/", json=body, headers=MCP)


def result(answer: httpx.Response) -> dict[str, Any]:
    """Return what a tool answered."""
    [line] = [line for line in answer.text.splitlines() if line.startswith("data:")]
    found: dict[str, Any] = json.loads(line.removeprefix("data:"))["result"]
    return found
