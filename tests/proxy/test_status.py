"""Who sees what is in flight, and who may let go of it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from tests.rig import rows
from tests.rig.burst import GATED, Ask, burst, one_in_flight
from tests.rig.identities import admin_key, caller, key
from tests.rig.provider import Provider
from tests.rig.proxy import Proxy

pytestmark = pytest.mark.proxy


async def ask(proxy: Proxy, path: str, as_key: str | None = None, **params: Any) -> httpx.Response:
    """Return the answer of a route of ours, to an admin unless to somebody else."""
    async with proxy.http(as_key or admin_key()) as client:
        return await client.get(f"/parallel_limits/{path}", params=params)


async def scopes(proxy: Proxy, as_key: str, **params: Any) -> dict[str, Any]:
    """Return the scopes that the holder of a key sees, by the name of the limit."""
    answer = await ask(proxy, "status", as_key, **params)
    return {scope["name"]: scope for scope in answer.raise_for_status().json()["scopes"]}


async def release(proxy: Proxy, as_key: str | None = None, **meant: str) -> httpx.Response:
    """Return the answer to an order to release."""
    async with proxy.http(as_key or admin_key()) as client:
        return await client.post("/parallel_limits/release", json=meant)


async def test_the_status_tells_who_holds_what(proxy: Proxy, provider: Provider) -> None:
    """Status shows each scope with its number and its holders, and a lease once in its total."""
    one = key(user_id="ann", user_max_parallel_requests=4, metadata={"max_parallel_requests": 2})
    async with one_in_flight(proxy, provider, one):
        await proxy.shows(1)
        document = (await ask(proxy, "status")).json()
    scopes = {scope["name"]: scope for scope in document["scopes"] if scope["in_flight"]}
    assert document["in_flight"] == 1
    assert document["degraded"] is False
    assert set(scopes) == {"api_key", "user"}
    assert scopes["user"]["scope"] == {"user": "ann"}
    assert (scopes["user"]["limit"], scopes["user"]["in_flight"], scopes["user"]["waiting"]) == (4, 1, 0)
    [holder] = scopes["user"]["holders"]
    assert holder.keys() == {"lease", "model", "worker", "age_seconds"}
    assert holder["model"] == GATED


async def test_own_scopes_are_seen_and_nothing_of_others(proxy: Proxy, provider: Provider) -> None:
    """A key that is no admin's sees what counts by itself, its user and its team, and nobody else."""
    numbers = {"metadata": {"max_parallel_requests": 2}, "user_max_parallel_requests": 3}
    team = {"team_id": "own-team", "team_metadata": {"team_max_parallel_requests": 9}}
    ann, bob = key(user_id="own-ann", **numbers, **team), key(user_id="own-bob", **numbers, **team)
    stranger = key(user_id="own-stranger", user_role="internal_user")
    async with one_in_flight(proxy, provider, ann), one_in_flight(proxy, provider, bob):
        await proxy.shows(2)
        seen = await scopes(proxy, ann)
        assert seen.keys() == {"api_key", "user", "team"}
        assert seen["user"]["scope"] == {"user": "own-ann"}
        told = {name: (scope["in_flight"], len(scope["holders"])) for name, scope in seen.items()}
        assert told == {"api_key": (1, 1), "user": (1, 1), "team": (2, 0)}
        assert await scopes(proxy, stranger) == {}


@pytest.mark.parametrize("path", ["history", "health", "explain"])
async def test_the_rest_is_for_admins(proxy: Proxy, path: str) -> None:
    """What tells of everybody is told to proxy admins only, those who may only look included."""
    assert (await ask(proxy, path, key(user_role="internal_user"))).status_code == 403
    assert (await ask(proxy, path, key(user_role="proxy_admin_viewer"))).status_code == 200


@pytest.mark.parametrize("path", ["status", "history", "health", "explain"])
async def test_without_a_key_nothing_is_told(proxy: Proxy, path: str) -> None:
    """Who sends no key is told that one is needed."""
    async with httpx.AsyncClient(base_url=proxy.url, trust_env=False) as client:
        assert (await client.get(f"/parallel_limits/{path}")).status_code == 401


async def test_refusals_of_the_last_minute_are_counted(proxy: Proxy, provider: Provider) -> None:
    """A limit that refused is shown with how often, also when nothing is in flight any more."""
    one = key(metadata={"max_parallel_requests": 1})
    await burst(proxy, provider, [Ask(one)] * 4)
    await proxy.settled()
    seen = await scopes(proxy, one)
    assert (seen["api_key"]["refused_lately"], seen["api_key"]["in_flight"]) == (3, 0)
    assert (seen["api_key"]["limit"], seen["api_key"]["utilization"]) == (1, 0)


async def test_pages_and_orders(proxy: Proxy, provider: Provider) -> None:
    """Scopes come in pages, in the order that is asked for."""
    one = key(user_id="paged", user_max_parallel_requests=4, metadata={"max_parallel_requests": 1})
    async with one_in_flight(proxy, provider, one):
        await proxy.shows(1)
        names = []
        for page in (1, 2):
            answer = await ask(proxy, "status", one, page=page, page_size=1, sort="utilization")
            document = answer.json()
            assert (document["total"], document["total_pages"], document["in_flight"]) == (2, 2, 1)
            names += [scope["name"] for scope in document["scopes"]]
        assert names == ["api_key", "user"]
        assert (await scopes(proxy, one, limit="user")).keys() == {"user"}
    assert (await ask(proxy, "status", page_size=0)).status_code == 422


@asynccontextmanager
async def full(proxy: Proxy, provider: Provider) -> AsyncIterator[str]:
    """Yield a key whose only slot is taken during the block."""
    one = key(user_id="released", user_max_parallel_requests=5, metadata={"max_parallel_requests": 1})
    async with one_in_flight(proxy, provider, one):
        await proxy.shows(1)
        assert (await Ask(one).send(proxy)).status_code == 429
        yield one


async def test_a_lease_is_released_by_hand(proxy: Proxy, provider: Provider) -> None:
    """An admin frees a request's slots everywhere: the next is admitted, and the request goes on."""
    async with full(proxy, provider) as one:
        [holder] = (await scopes(proxy, one))["api_key"]["holders"]
        answer = await release(proxy, lease=holder["lease"])
        assert (answer.status_code, answer.json()) == (200, {"released": 2})
        assert (await Ask(one, "steady").send(proxy)).status_code == 200
        assert provider.count(caller=caller(one)).in_flight == 1
    assert (await release(proxy, lease=holder["lease"])).status_code == 404


async def test_a_scope_is_released_by_hand(proxy: Proxy, provider: Provider) -> None:
    """By the id that the status has for it a scope is emptied, and no other."""
    async with full(proxy, provider) as one:
        scope = (await scopes(proxy, one))["api_key"]
        assert (await release(proxy, scope=scope["id"])).json() == {"released": 1}
        assert (await scopes(proxy, one))["user"]["in_flight"] == 1


async def test_releasing_is_for_full_admins(proxy: Proxy, provider: Provider) -> None:
    """Neither who may only look, nor whose request it is, releases anything; nor is nothing named."""
    async with full(proxy, provider) as one:
        [holder] = (await scopes(proxy, one))["api_key"]["holders"]
        for other in (one, key(user_role="proxy_admin_viewer")):
            assert (await release(proxy, other, lease=holder["lease"])).status_code == 403
        for meant in ({}, {"lease": "unknown"}, {"scope": "unknown"}):
            assert (await release(proxy, **meant)).status_code == 404
        assert (await scopes(proxy, one))["api_key"]["in_flight"] == 1


async def test_health_tells_of_the_store(proxy: Proxy, store: str, provider: Provider) -> None:
    """The worker that answers says which store it has, and that it answers."""
    async with one_in_flight(proxy, provider, key(metadata={"max_parallel_requests": 1})):
        health = (await ask(proxy, "health")).json()
    assert (health["status"], health["store"]) == ("healthy", store)
    assert health["store_ms"] >= 0
    assert health["workers"] >= 1
    assert health["degraded_seconds"] is None


async def test_explaining_says_where_numbers_come_from(proxy: Proxy) -> None:
    """An admin is told each limit that a request would meet, from LiteLLM's own records."""
    hashed = hashlib.sha256(b"sk-explained").hexdigest()
    known = {
        **rows.api_key(
            hashed,
            key_alias="explained",
            user_id="explained-ann",
            metadata={"model_max_parallel_requests": {GATED: 2}},
            team_id="explained-team",
            team_metadata={"model_max_parallel_requests": {"openai/*": 5}},
        ),
        **rows.user("explained-ann", 7),
    }
    admin = key(user_role="proxy_admin", user_id="admin", rows=known)
    explained = (await ask(proxy, "explain", admin, key=hashed, model=GATED)).json()
    met = {limit["name"]: limit for limit in explained["limits"]}
    assert met["model_per_key"]["source"] == "key metadata model_max_parallel_requests"
    assert met["model_per_key"]["overridden"] == [
        {"source": "team metadata model_max_parallel_requests", "limit": 5}
    ]
    assert met["model_per_key"]["scope"] == {"key": hashed[:8], "model": GATED}
    assert explained["identities"]["user"] == "explained-ann"


async def test_a_key_is_explained_by_its_hash_only(proxy: Proxy) -> None:
    """Addresses are logged: what is no hash is turned away, and not repeated."""
    answer = await ask(proxy, "explain", key="sk-secret-of-mine")
    assert answer.status_code == 422
    assert "secret" not in answer.text


async def test_the_routes_are_in_litellms_openapi_page(proxy: Proxy) -> None:
    """Whoever reads LiteLLM's list of routes finds ours, with what they answer."""
    async with proxy.http(admin_key()) as client:
        paths = (await client.get("/openapi.json")).json()["paths"]
    ours = {
        path.rpartition("/")[2]: list(methods) for path, methods in paths.items() if "parallel_lim" in path
    }
    assert ours == {
        "status": ["get"],
        "history": ["get"],
        "release": ["post"],
        "health": ["get"],
        "explain": ["get"],
    }


async def command(proxy: Proxy, *words: str, as_key: str | None = None) -> tuple[int, Any]:
    """Return how a command ends that asks the proxy, and the document that it prints."""
    told = {"LITELLM_PROXY_URL": proxy.url, "LITELLM_PROXY_API_KEY": as_key or admin_key()}
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "litellm_parallel_limits", *words, "--json"),
        env={**os.environ, **told},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await asyncio.wait_for(running.communicate(), 30)
    assert b"sk-" not in output + errors
    return running.returncode or 0, json.loads(output or "null")


async def test_commands_ask_a_real_proxy(proxy: Proxy, provider: Provider) -> None:
    """What is in flight can be seen, explained and released from a shell."""
    async with full(proxy, provider) as one:
        code, status = await command(proxy, "status", "--limit", "api_key", as_key=one)
        [scope] = status["scopes"]
        assert (code, scope["in_flight"], scope["limit"]) == (0, 1, 1)
        assert (await command(proxy, "health"))[1]["status"] == "healthy"
        explained = (await command(proxy, "explain", "--model", GATED, "--of-key", "sk-some"))[1]
        assert explained["identities"] == {"key": hashlib.sha256(b"sk-some").hexdigest()[:8]}
        released = await command(proxy, "release", "--lease", scope["holders"][0]["lease"], "--yes")
        assert released == (0, {"released": 2})
        assert (await command(proxy, "health", as_key=one))[0] == 3
