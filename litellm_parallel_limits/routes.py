"""The HTTP routes that show what is in flight, and let go of it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, HTTPException, Query, Request, Security
from litellm.proxy._types import ProxyException
from litellm.proxy.auth.user_api_key_auth import api_key_header, user_api_key_auth
from pydantic import BaseModel, ConfigDict

from litellm_parallel_limits.calls import caller
from litellm_parallel_limits.errors import StoreError, TooManyLimitsError
from litellm_parallel_limits.explain import Explanation
from litellm_parallel_limits.health import Health
from litellm_parallel_limits.history import Past
from litellm_parallel_limits.onlooker import EVERYBODY, Onlooker
from litellm_parallel_limits.overview import Overview
from litellm_parallel_limits.status import MOST_A_PAGE, Sort, Status, View

ADMIN = "proxy_admin"
"""LiteLLM's role that may release what others hold."""

ADMIN_ROLES = frozenset({ADMIN, "proxy_admin_viewer"})
"""LiteLLM's roles that see everybody's requests."""

OWN_INFO = "/key/info"
"""LiteLLM's route by which a key looks at itself: who may do that may see its own scopes."""

BAD_REQUEST, UNAUTHORIZED, FORBIDDEN = 400, 401, 403

_HASH = re.compile(r"[0-9a-f]{64}")
_T = TypeVar("_T")


class Release(BaseModel):
    """What is to be released: a lease, everything in a scope, or a lease in one scope.

    By the names that the status has for them. Who held it goes on, and is no longer counted there.
    """

    model_config = ConfigDict(extra="forbid")  # a mistyped `scope` would free the lease everywhere

    lease: str | None = None
    scope: str | None = None


class Asked(BaseModel):
    """Of which request the limits are to be explained; a key by its hash, for addresses are logged."""

    model: str = ""
    key: str | None = None
    user: str | None = None
    team: str | None = None
    end_user: str | None = None
    tag: list[str] = []


@dataclass(frozen=True, slots=True)
class Released:
    """How many slots were released."""

    released: int


Explain = Callable[[str, Sequence[str], Mapping[str, str | None]], Awaitable[Explanation]]
"""Returns which limits a request for a model, with these tags, of these parties meets."""


async def _auth(request: Request) -> Any:
    """Return LiteLLM's auth object of who asks."""
    parameters = signature(user_api_key_auth).parameters.items()
    headers = {name: await one.default.dependency(request) for name, one in parameters if name != "request"}
    try:
        return await user_api_key_auth(request=request, **headers)
    except HTTPException:
        raise
    except ProxyException as error:
        if _code(error) != str(BAD_REQUEST) or request.method != "GET":
            raise
        # What LiteLLM says of a key it does not know, without a database.
        raise HTTPException(UNAUTHORIZED, error.message) from error
    except Exception as error:  # of LiteLLM 1.106 without its package for a database, over what it had to say
        if _code(error.__context__) == str(FORBIDDEN):
            raise HTTPException(FORBIDDEN, "LiteLLM does not let this key look here.") from error
        raise HTTPException(UNAUTHORIZED, "A key is needed that LiteLLM can check.") from error


async def _onlooker(request: Request) -> Onlooker:
    """Return who asks: an admin, or any key that may look at itself, or at these routes."""
    try:
        auth = await _auth(Request({**request.scope, "path": OWN_INFO}, _no_body))
    except (HTTPException, ProxyException):
        auth = await _auth(Request(request.scope, _no_body))
    else:
        if _role(auth) in ADMIN_ROLES and getattr(auth, "allowed_routes", None):
            auth = await _auth(Request(request.scope, _no_body))  # it may be for its own eyes only
    return EVERYBODY if _role(auth) in ADMIN_ROLES else Onlooker.of(caller(auth))


async def _no_body() -> dict[str, object]:
    """Return the body of a request that LiteLLM reads twice: a second wait for the client's would hang."""
    return {"type": "http.request", "body": b"", "more_body": False}


def _code(error: Any) -> str:
    """Return the status of FastAPI's error, or of LiteLLM's, as text."""
    return str(getattr(error, "status_code", getattr(error, "code", None)))


def _admin(onlooker: Annotated[Onlooker, Depends(_onlooker)]) -> None:
    if onlooker != EVERYBODY:
        raise HTTPException(FORBIDDEN, "Only proxy admins see what is in flight of others.")


def _full_admin(auth: Annotated[Any, Depends(_auth)]) -> None:
    if _role(auth) != ADMIN:
        raise HTTPException(FORBIDDEN, "Only proxy admins release what is held.")


def _role(auth: Any) -> object:
    role = getattr(auth, "user_role", None)
    return getattr(role, "value", role)


async def _answered(call: Awaitable[_T]) -> _T:
    try:
        return await call
    except StoreError as error:
        raise HTTPException(503, "The store of the parallel limits does not answer.") from error


def router(overview: Overview, explain: Explain) -> APIRouter:
    """Return the routes to what `overview` shows, and to what `explain` explains."""
    routes = APIRouter(
        prefix="/parallel_limits", tags=["parallel limits"], dependencies=[Security(api_key_header)]
    )

    @routes.get("/status")
    async def parallel_limits_status(
        onlooker: Annotated[Onlooker, Depends(_onlooker)],
        page: Annotated[int, Query(ge=1)] = 1,
        page_size: Annotated[int, Query(ge=1, le=MOST_A_PAGE)] = 100,
        sort: Sort = "name",
        limit: str | None = None,
    ) -> Status:
        """Show what is in flight, waiting and refused lately, over all workers and proxies.

        Proxy admins see everything, and who holds it; any other key sees the limits of its own.
        """
        return await overview.status(View(onlooker, page, page_size, sort, limit))

    @routes.get("/history", dependencies=[Depends(_admin)])
    async def parallel_limits_history() -> Past:
        """Show what was in flight and refused in the last quarter of an hour; for proxy admins."""
        return await _answered(overview.past())

    @routes.post("/release", dependencies=[Depends(_full_admin)])
    async def parallel_limits_release(meant: Release) -> Released:
        """Release a lease, or all that is held in a scope, by hand; for proxy admins."""
        released = await _answered(overview.release(scope=meant.scope, lease=meant.lease))
        if not released:
            raise HTTPException(404, "Nothing of that name is in flight.")
        return Released(released)

    @routes.get("/health", dependencies=[Depends(_admin)])
    async def parallel_limits_health() -> Health:
        """Show how the limiter of the worker is that answers; for proxy admins."""
        return await overview.health()

    @routes.get("/explain", dependencies=[Depends(_admin)])
    async def parallel_limits_explain(asked: Annotated[Asked, Query()]) -> Explanation:
        """Show which limits a request meets, and where their numbers come from; for proxy admins."""
        if asked.key is not None and not _HASH.fullmatch(asked.key):
            raise HTTPException(422, "key: its hash is wanted (sha256, 64 hex digits), never the key itself.")
        parties = {"key": asked.key, "user": asked.user, "team": asked.team, "end_user": asked.end_user}
        try:
            return await explain(asked.model, asked.tag, parties)
        except TooManyLimitsError as error:
            raise HTTPException(400, str(error)) from error

    return routes
