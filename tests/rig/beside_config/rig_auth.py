"""LiteLLM's custom auth: a key is its own record. The proxy loads this file from beside its config."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from typing import Any

from fastapi import Request
from litellm.proxy import _types, proxy_server

from litellm_parallel_limits import UserAPIKeyAuth


async def authenticate(request: Request, api_key: str) -> UserAPIKeyAuth:
    """Return the auth object that `api_key` carries, with the key itself.

    The rows that it carries beside are put where LiteLLM's cache keeps such.
    """
    _, _, payload = api_key.partition("-")
    carried = json.loads(urlsafe_b64decode(payload))
    for key, (of, fields) in carried.get("rows", {}).items():
        await _keep(key, getattr(_types, of).model_construct(**fields))
    traced = getattr(request.state, "parent_otel_span", None)  # custom auth has to hand it on
    return UserAPIKeyAuth(api_key=api_key, parent_otel_span=traced, **carried["record"])


async def _keep(key: str, row: Any) -> None:
    # Not validated: what becomes of a bad value is for LiteLLM's own look-ups to find out.
    await proxy_server.user_api_key_cache.async_set_cache(key=key, value=row.model_dump(warnings=False))
