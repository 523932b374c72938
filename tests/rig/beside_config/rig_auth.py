"""LiteLLM's custom auth: a key is its own record. The proxy loads this file from beside its config."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode

from fastapi import Request

from litellm_parallel_limits import UserAPIKeyAuth


async def authenticate(request: Request, api_key: str) -> UserAPIKeyAuth:
    """Return the auth object that `api_key` carries, with the key itself."""
    _, _, payload = api_key.partition("-")
    record = json.loads(urlsafe_b64decode(payload))["record"]
    return UserAPIKeyAuth(api_key=api_key, **record)
