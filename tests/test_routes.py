"""Who may look, by LiteLLM's own keys and roles."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import HTTPException
from litellm.proxy import proxy_server
from litellm.proxy._types import ProxyException, UserAPIKeyAuth, hash_token
from starlette.requests import Request

from litellm_parallel_limits.onlooker import EVERYBODY, Onlooker
from litellm_parallel_limits.routes import _admin, _onlooker

STATUS, HISTORY = "/parallel_limits/status", "/parallel_limits/history"
ADMIN, VIEWER, USER = "proxy_admin", "proxy_admin_viewer", "internal_user"


@pytest.fixture(autouse=True)
def litellm_has_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """LiteLLM has a master key, and a database that it need not ask: its cache has the keys."""
    monkeypatch.setattr(proxy_server, "master_key", "sk-master")
    monkeypatch.setattr(proxy_server, "prisma_client", "a database")


async def asked_by(path: str, **record: Any) -> Request:
    """Return what is asked by a key of LiteLLM's with this record."""
    key = f"sk-{abs(hash(str(record)))}"
    known = UserAPIKeyAuth(api_key=hash_token(key), token=hash_token(key), **record)
    await proxy_server.user_api_key_cache.async_set_cache(key=hash_token(key), value=known.model_dump())
    headers = [(b"authorization", f"Bearer {key}".encode()), (b"host", b"proxy")]

    once = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> dict[str, object]:
        return next(once)  # a client sends its body once, and who waits for another waits for ever

    scope = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b""}
    server = {"client": ("10.0.0.1", 1), "server": ("proxy", 80), "scheme": "http", "root_path": ""}
    return Request({**scope, **server, "headers": headers}, receive)


async def code(request: Request) -> str:
    """Return with which status LiteLLM turns away who asks."""
    try:
        await _onlooker(request)
    except HTTPException as error:
        return str(error.status_code)
    except ProxyException as error:
        return str(error.code)
    return "200"


@pytest.mark.parametrize("role", [ADMIN, VIEWER])
async def test_admins_see_everybody(role: str) -> None:
    """Proxy admins see everything, those who may only look included."""
    assert await _onlooker(await asked_by(STATUS, user_role=role)) == EVERYBODY


async def test_any_key_sees_its_own() -> None:
    """A key of LiteLLM's that is no admin's sees what counts by itself and its user, at the status only."""
    seen = await _onlooker(await asked_by(STATUS, user_role=USER, user_id="ann"))
    assert isinstance(seen, Onlooker)
    assert seen.own is not None
    assert "user=ann" in seen.own
    with pytest.raises(HTTPException, match="403"):
        _admin(await _onlooker(await asked_by(HISTORY, user_role=USER, user_id="ann")))


async def test_admins_key_for_itself_only_sees_nothing_of_others() -> None:
    """An admin's key that may call no route but to look at itself is turned away, not shown everybody."""
    assert await code(await asked_by(STATUS, user_role=ADMIN, allowed_routes=["/key/info"])) in {"401", "403"}


async def test_key_for_these_routes_may_look() -> None:
    """A key that may call nothing but these routes, as a monitor has, sees what its role may see."""
    request = await asked_by(STATUS, user_role=ADMIN, allowed_routes=["/parallel_limits/*"])
    assert await _onlooker(request) == EVERYBODY


async def test_blocked_key_sees_nothing() -> None:
    """Who is blocked is turned away."""
    assert await code(await asked_by(STATUS, user_role=USER, blocked=True)) in {"401", "403"}
