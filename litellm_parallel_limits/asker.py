"""Who would ask, as LiteLLM's records know them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from litellm.proxy._types import UserAPIKeyAuth

from litellm_parallel_limits.look_ups import ask_litellm
from litellm_parallel_limits.tables import table


async def asker(
    proxy: Any,
    *,
    key: str | None = None,
    user: str | None = None,
    team: str | None = None,
    end_user: str | None = None,
) -> UserAPIKeyAuth:
    """Return LiteLLM's auth object of a request of these parties, of whom all but the key go before its own.

    `proxy` is LiteLLM's `proxy_server` module, `key` the hash of one. Of whom LiteLLM has no record
    nothing but the name is known. Custom auth, which makes such objects itself, is not asked.
    """
    known = None if key is None else await ask_litellm(proxy, "get_key_object", hashed_token=key)
    auth = known if isinstance(known, UserAPIKeyAuth) else UserAPIKeyAuth()
    named = {"api_key": key, "user_id": user, "team_id": team, "end_user_id": end_user}
    auth = auth.model_copy(update={name: value for name, value in named.items() if value is not None})
    return auth if team is None else auth.model_copy(update=await _of_team(proxy, team))


async def _of_team(proxy: Any, team: str) -> Mapping[str, object]:
    row = await ask_litellm(proxy, "get_team_object", team_id=team)
    return {
        "team_alias": getattr(row, "team_alias", None),
        "team_metadata": table(getattr(row, "metadata", None)),
    }
