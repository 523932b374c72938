"""The HTTP routes that show what is in flight."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException
from litellm.proxy.auth.user_api_key_auth import user_api_key_auth

from litellm_parallel_limits.status import Document

ADMIN_ROLES = frozenset({"proxy_admin", "proxy_admin_viewer"})
"""LiteLLM's roles that see everybody's requests."""


def router(status: Callable[[], Awaitable[Document]]) -> APIRouter:
    """Return the routes; `status` gives the document they show."""
    routes = APIRouter(prefix="/parallel_limits", tags=["parallel limits"])

    @routes.get("/status")
    async def parallel_limits_status(auth: Annotated[Any, Depends(user_api_key_auth)]) -> Document:
        """Show every limit with something in flight, over all workers and proxies, and who holds it."""
        _require_admin(auth)
        return await status()

    return routes


def _require_admin(auth: Any) -> None:
    role = getattr(auth, "user_role", None)
    if getattr(role, "value", role) not in ADMIN_ROLES:
        raise HTTPException(403, "Only proxy admins see what is in flight.")
