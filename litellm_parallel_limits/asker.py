"""Who would ask, as LiteLLM's records know them."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from litellm.proxy._types import UserAPIKeyAuth

from litellm_parallel_limits.deadlines import in_time
from litellm_parallel_limits.look_ups import ask_litellm
from litellm_parallel_limits.tables import table

RECORD_SECONDS = 1.0
"""For which a record is waited for. Ours: an admin waits, and no request does."""


async def asker(
    proxy: Any,
    *,
    key: str | None = None,
    user: str | None = None,
    team: str | None = None,
    end_user: str | None = None,
) -> tuple[UserAPIKeyAuth, list[str]]:
    """Return LiteLLM's auth object of a request of these parties, and of which there is no record.

    All but the key go before the key's own. `proxy` is LiteLLM's `proxy_server` module, `key` the hash of
    one. Of whom LiteLLM has no record nothing but the name is known. What LiteLLM adds only while it checks a
    key (its project, the organization of its team) is not known either, and custom auth is not asked.
    """
    unread: list[str] = []
    auth = UserAPIKeyAuth()
    if key is not None:
        known = await _record(ask_litellm(proxy, "get_key_object", hashed_token=key))
        auth = known if isinstance(known, UserAPIKeyAuth) else auth
        unread += [] if auth is known else ["key"]
    named: dict[str, object] = {"api_key": key, "end_user_id": end_user}
    if user is not None:
        named |= {"user_id": user, "user_email": None}
    if team is not None:
        row = await _record(ask_litellm(proxy, "get_team_object", team_id=team))
        unread += [] if row is not None else ["team"]
        named |= {"team_id": team, "team_alias": getattr(row, "team_alias", None), "org_id": None}
        named["team_metadata"] = table(getattr(row, "metadata", None))
    return auth.model_copy(update=named), unread


async def _record(asking: Awaitable[Any]) -> Any:
    """Return a record, None if there is none or it cannot be had in time."""
    try:
        return await in_time(asking, RECORD_SECONDS)
    except Exception:  # noqa: BLE001 (LiteLLM's, of many kinds: of a key it does not know, 401)
        return None
