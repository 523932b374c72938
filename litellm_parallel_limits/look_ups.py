"""How LiteLLM is asked for the records of a request's parties."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
from collections.abc import Awaitable, Callable, Hashable, Mapping
from functools import cache, partial
from typing import Any

from litellm.proxy.auth import auth_checks

from litellm_parallel_limits.built_in import NUMBER
from litellm_parallel_limits.errors import NoRecordError
from litellm_parallel_limits.records import Found, LookUp
from litellm_parallel_limits.sources import Call, Record
from litellm_parallel_limits.stand_ins import NoRows, OnlyRead, Watched
from litellm_parallel_limits.tables import table

DEFAULT_MEMBER_BUDGET = "team_member_budget_id"
"""The field of a team's metadata that names the budget of its members who have none of their own."""

LONGEST_ID = 100
"""Characters of an id that is remembered as it is. Ours."""

SAY_THERE_IS_NONE = frozenset({"UserNotFoundError", "TeamNotFoundError", "OrganizationNotFoundError"})
"""LiteLLM's errors by which a look-up says just that, by name: not every version has them."""

Ask = Callable[..., Awaitable[Any]]
"""Calls one of LiteLLM's look-ups, by its name."""

NOT_FOUND = 404
"""HTTP's; LiteLLM raises it for teams that it could not read as well."""


def look_ups(auth: Any, call: Call, wanted: frozenset[Record], proxy: Any) -> dict[Hashable, LookUp]:
    """Return how to look up the `wanted` records, each by whose it is.

    `proxy` is LiteLLM's `proxy_server` module. Each goes through the look-up that LiteLLM's own
    authentication uses, and so through its cache; where LiteLLM has no database, no further than that.
    """
    ask = partial(ask_litellm, proxy)
    user: Any = getattr(auth, "user_id", None)
    team: Any = getattr(auth, "team_id", None)
    organization: Any = getattr(auth, "org_id", None)
    customer: Any = getattr(auth, "end_user_id", None)
    found: dict[Hashable, LookUp] = {}
    if "user" in wanted or "user metadata" in wanted:
        found["user", user] = partial(_user, ask, user)
    if "team" in wanted:
        found["team", team] = partial(_team, ask, team)
    if "membership budget" in wanted:
        found["member", team, user] = partial(_member, ask, team, user)
        budget = table(getattr(auth, "team_metadata", None)).get(DEFAULT_MEMBER_BUDGET)
        if isinstance(budget, str):
            found["member default", budget] = partial(_member_default, ask, budget)
    if "organization budget" in wanted:
        found["organization", organization] = partial(_organization, ask, organization)
    if "customer budget" in wanted:
        default = table(getattr(auth, "metadata", None)).get("end_user_budget_id")
        default = default if isinstance(default, str) else None
        found["customer", _short(customer), default] = partial(_customer, ask, customer, default)
    if "tag budgets" in wanted:
        together = Together(partial(_tags, ask))
        found |= {("tag", _short(tag.id)): partial(_tag, together, tag.id) for tag in call.tags}
    return found


async def _user(ask: Ask, user: str) -> Found:
    # user_id_upsert creates users.
    row = await ask("get_user_object", user_id=user, user_id_upsert=False)
    if row is None:
        return {}
    return {"user": _number(row), "user metadata": table(getattr(row, "metadata", None))}


async def _team(ask: Ask, team: str) -> Found:
    row = await ask("get_team_object", team_id=team)
    return {} if row is None else {"team": _number(row)}


async def _member(ask: Ask, team: str, user: str) -> Found:
    row = await ask("get_team_membership", user_id=user, team_id=team)
    return _budget("membership budget", row)


async def _member_default(ask: Ask, budget: str) -> Found:
    row = await ask("get_team_member_default_budget", budget_id=budget)
    return {} if row is None else {"member default budget": _number(row)}


async def _organization(ask: Ask, organization: str) -> Found:
    row = await ask("get_org_object", org_id=organization, include_budget_table=True)
    return _budget("organization budget", row)


async def _customer(ask: Ask, customer: str, default_budget: object) -> Found:
    row = await ask("get_end_user_object", end_user_id=customer, key_end_user_budget_id=default_budget)
    return _budget("customer budget", row)


async def _tags(ask: Ask, names: list[str]) -> Mapping[str, Any]:
    """Return the rows of those tags that there are, and the failure for the others if there was one."""
    failures: list[Exception] = []
    rows = await ask("get_tag_objects_batch", failures, tag_names=names) or {}
    return {**dict.fromkeys(names, failures[0] if failures else None), **rows}


async def _tag(together: Together, name: str) -> Found:
    row = (await together.ask(name)).get(name)
    if isinstance(row, Exception):
        raise row
    budget = _budget_of(row)
    return {} if budget is None else {"tag budgets": {name: _number(budget)}}


def _budget(record: Record, row: Any) -> Found:
    budget = _budget_of(row)
    return {} if budget is None else {record: _number(budget)}


def _budget_of(row: Any) -> Any:
    return getattr(row, "litellm_budget_table", None)


def _number(row: Any) -> Mapping[str, object]:
    """Return the number in `row`, which LiteLLM keeps as a model or as a table."""
    return {NUMBER: row.get(NUMBER) if isinstance(row, Mapping) else getattr(row, NUMBER, None)}


async def ask_litellm(
    proxy: Any, name: str, failures: list[Exception] | None = None, **wanted: object
) -> Any:
    """Call LiteLLM's look-up `name`; None where this version has none, or nothing is there.

    Failures of the database are noted in `failures`, and raised where nothing was found. Raises
    NoRecordError where LiteLLM says that nothing is there, and may mean that it could not look.
    """
    look_up = getattr(auth_checks, name, None)
    if look_up is None:
        return None
    database, cache = proxy.prisma_client, proxy.user_api_key_cache
    failures = [] if failures is None else failures
    known = {
        "prisma_client": NoRows() if database is None else Watched(database, failures),
        "user_api_key_cache": OnlyRead(cache) if database is None else cache,
        "proxy_logging_obj": proxy.proxy_logging_obj,
        "route": "",
        **wanted,
    }
    try:
        found = await look_up(**{name: known[name] for name in _parameters(look_up) if name in known})
    except Exception as error:
        # Without a database nothing can fail: LiteLLM's look-ups then stumble over its missing package.
        if database is None or type(error).__name__ in SAY_THERE_IS_NONE:
            return None
        if getattr(error, "status_code", None) == NOT_FOUND or "doesn't exist" in str(error):
            raise (failures[0] if failures else NoRecordError(name)) from error
        raise
    if failures and not found:
        raise failures[0]
    return found


@cache
def _parameters(function: Any) -> tuple[str, ...]:
    return tuple(inspect.signature(function).parameters)


def _short(text: str) -> str:
    """Return a text as long as a hash at most that no other text has: strangers may be called anything."""
    return (
        text
        if len(text) <= LONGEST_ID
        else "*" + hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
    )


class Together:
    """Asks once for all that is asked for at the same time."""

    def __init__(self, ask_all: Callable[[list[str]], Awaitable[Mapping[str, Any]]]) -> None:
        self._ask_all = ask_all
        self._names: list[str] = []
        self._asked: asyncio.Task[Mapping[str, Any]] | None = None

    async def ask(self, name: str) -> Mapping[str, Any]:
        """Return what there is of all of them."""
        self._names.append(name)
        if self._asked is None:
            self._asked = asyncio.create_task(self._ask())
        return await asyncio.shield(self._asked)

    async def _ask(self) -> Mapping[str, Any]:
        await asyncio.sleep(0)  # lets the others name theirs
        return await self._ask_all(self._names)
