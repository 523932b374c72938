"""Rows that LiteLLM's cache has of a party, as its database would have given them.

Each is `{key in the cache: (LiteLLM's class, fields)}`; the rig's custom auth puts those of a key there.
"""

from __future__ import annotations

from typing import Any

Rows = dict[str, tuple[str, dict[str, Any]]]

_BY = {"created_by": "admin", "updated_by": "admin"}


def api_key(one: str, **fields: object) -> Rows:
    """Return a key, by its hash."""
    return {one: ("UserAPIKeyAuth", {"token": one, **fields})}


def user(one: str, number: object = None, metadata: dict[str, Any] | None = None) -> Rows:
    """Return a user."""
    fields = {"user_id": one, "max_budget": None, "user_email": None, "max_parallel_requests": number}
    return {one: ("LiteLLM_UserTable", {**fields, "metadata": metadata or {}})}


def team(one: str, number: object) -> Rows:
    """Return a team."""
    return {
        f"team_id:{one}": ("LiteLLM_TeamTableCachedObj", {"team_id": one, "max_parallel_requests": number})
    }


def member(team: str, user: str, number: object) -> Rows:
    """Return the membership of a user in a team, with a budget."""
    fields = {"team_id": team, "user_id": user, **_with_budget(number)}
    return {f"team_membership:{user}:{team}": ("LiteLLM_TeamMembership", fields)}


def member_default(budget: str, number: object) -> Rows:
    """Return the budget of a team's members who have none of their own."""
    return {f"team_member_default_budget:{budget}": ("LiteLLM_BudgetTable", _budget(budget, number))}


def organization(one: str, number: object) -> Rows:
    """Return an organization, with its budget."""
    fields = {"organization_id": one, "models": [], **_BY, **_with_budget(number)}
    return {f"org_id:{one}:with_budget": ("LiteLLM_OrganizationTable", fields)}


def customer(one: str, number: object) -> Rows:
    """Return a customer, with a budget."""
    fields = {"user_id": one, "blocked": False, **_with_budget(number)}
    return {f"end_user_id:{one}": ("LiteLLM_EndUserTable", fields)}


def tag(one: str, number: object) -> Rows:
    """Return a tag, with a budget."""
    return {f"tag:{one}": ("LiteLLM_TagTable", {"tag_name": one, "models": [], **_with_budget(number)})}


def _with_budget(number: object) -> dict[str, Any]:
    return {"budget_id": "b1", "litellm_budget_table": _budget("b1", number)}


def _budget(one: str, number: object) -> dict[str, Any]:
    return {"budget_id": one, "max_parallel_requests": number}
