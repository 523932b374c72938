"""Which model group LiteLLM's router takes a name for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

from litellm_parallel_limits.model_info import Entry
from litellm_parallel_limits.tables import table


class Found(NamedTuple):
    """What requests for a name are counted by, and the deployments that may answer, as the router keeps them.

    Only a model that is behind deployments of several groups has `others`: LiteLLM sends it to any of them.
    """

    name: str
    entries: Sequence[Entry]
    others: tuple[str, ...] = ()


def find(router: Any, name: str, team: str | None = None) -> Found:
    """Return what `name` leads to when a caller of the team with the id `team` asks for it.

    Every spelling that leads to the same deployments is one: a group, an alias of it, the id of one of its
    deployments, the model behind it where nobody else answers for that, a team's public name of it, and
    any unknown name of which it is the default fallback. The names of a wildcard are counted apart, each
    as the wildcard was matched by it: `gpt-4o` is counted with `openai/gpt-4o` where `openai/*` answers
    for it. They are one, by the wildcard's own name, if all of them lead to one model. A name that the
    router does not know is its own.
    """
    if router is None:
        return Found(name, ())
    try:
        return _resolved(router, name, team)
    except Exception:  # noqa: BLE001 (an odd name, or configuration, is LiteLLM's to refuse)
        return Found(name, ())


def _resolved(router: Any, name: str, team: str | None) -> Found:
    """Follow LiteLLM's `Router._common_checks_available_deployment`, and the proxy's way there."""
    found = _by_id(router, name)
    if found is not None:
        return found
    target = _alias(router, name) or name
    ways = _WAYS if _knows_teams(router) else _WAYS_BEFORE_TEAMS
    tried = (way(router, target, team) for way in ways)
    return next((found for found in tried if found is not None), Found(target, ()))


def _by_id(router: Any, name: str) -> Found | None:
    if name in router.model_names:
        return None
    index = router.model_id_to_deployment_index_map.get(name)
    return None if index is None else _together([router.model_list[index]])


def _alias(router: Any, name: str) -> str | None:
    """Return what an alias stands for. LiteLLM follows one, not an alias of an alias."""
    target = table(router.model_group_alias).get(name)
    model = target.get("model") if isinstance(target, Mapping) else target
    return model if isinstance(model, str) and model else None


def _by_routing_group(router: Any, name: str, team: str | None) -> Found | None:
    """Find a routing group: it is no other name of its members, any of which may answer for it."""
    routing_group = getattr(router, "get_routing_group", lambda _: None)(name)
    if routing_group is None:
        return None
    members = (_by_team(router, one, team) or _by_name(router, one, team) for one in routing_group.models)
    return Found(name, [entry for member in members if member is not None for entry in member.entries])


def _by_team(router: Any, name: str, team: str | None) -> Found | None:
    """Find the deployments that `team` calls by `name`: they come before everybody's of that name."""
    if team is None:
        return None
    if _knows_teams(router):
        entries = _at(router, router.team_model_to_deployment_indices.get((team, name)))
    else:
        of_team = [entry for entry in router.model_list if _team(entry) == team]
        entries = [entry for entry in of_team if _public_name(entry) == name]
    return Found(name, entries) if entries else None


def _by_name(router: Any, name: str, team: str | None) -> Found | None:
    entries = _at(router, router.model_name_to_deployment_indices.get(name))
    return _together(_usable(entries, team)) if entries else None


def _by_wildcard(router: Any, name: str, team: str | None) -> Found | None:
    if name in router.model_names:
        return None
    found = _matched(router.pattern_router, name)
    if found is None and team in router.team_pattern_routers:
        found = _matched(router.team_pattern_routers[team], name)
    return found and Found(found.name, _usable(found.entries, team))


def _by_default_deployment(router: Any, name: str, _: str | None) -> Found | None:
    if name in router.model_names or router.default_deployment is None:
        return None
    return Found(name, (router.default_deployment,))


def _by_model(router: Any, name: str, team: str | None) -> Found | None:
    """Find the deployments behind which is the model `name`: they may be of several groups."""
    if name not in router.deployment_names:
        return None
    entries = _usable([entry for entry in router.model_list if _model(entry) == name], team)
    names = list(dict.fromkeys(map(_public_name, entries)))
    return Found(names[0], entries, tuple(names[1:])) if entries else None


def _by_default_fallback(router: Any, _: str, team: str | None) -> Found | None:
    """Find the group that answers for every name that nobody else answers for."""
    lists = (table(fallbacks).get("*") for fallbacks in router.fallbacks or ())
    default = next((models[0] for models in lists if models), None)
    if not isinstance(default, str):
        return None
    return _by_team(router, default, team) or _by_name(router, default, team)


_WAYS = (
    _by_routing_group,
    _by_team,
    _by_name,
    _by_wildcard,
    _by_default_deployment,
    _by_model,
    _by_default_fallback,
)
"""The first that finds something is LiteLLM's."""

_WAYS_BEFORE_TEAMS = (
    _by_name,
    _by_team,
    _by_model,
    _by_wildcard,
    _by_default_deployment,
    _by_default_fallback,
)
"""So it was before LiteLLM had an index of what teams call their deployments (1.80)."""


def _knows_teams(router: Any) -> bool:
    return hasattr(router, "team_model_to_deployment_indices")


def _at(router: Any, indices: Iterable[int] | None) -> Sequence[Entry]:
    return [router.model_list[index] for index in indices or ()]


def _together(entries: Sequence[Entry]) -> Found | None:
    """Count deployments by the name of the first one, which is not None unless there are none."""
    return Found(_public_name(entries[0]), entries) if entries else None


def _usable(entries: Sequence[Entry], team: str | None) -> Sequence[Entry]:
    """Return those that a caller of `team` may use. Who has no team may be an admin, who may use all."""
    usable = [entry for entry in entries if _team(entry) in {None, team}]
    return usable if usable or team is not None else entries


def _team(entry: Entry) -> str | None:
    return table(entry.get("model_info")).get("team_id")


def _public_name(entry: Entry) -> str:
    """Return what a deployment is called by its callers: a team's has another name within LiteLLM."""
    public = _team(entry) and table(entry.get("model_info")).get("team_public_model_name")
    return str(public or entry["model_name"])


def _model(entry: Entry) -> str:
    return str(entry["litellm_params"]["model"])


def _matched(patterns: Any, name: str) -> Found | None:
    """Find the wildcard that LiteLLM's pattern router takes `name` for, and what its name is then."""
    if not patterns.patterns:
        return None
    entries, found = _best(patterns, name) or _best(patterns, _with_provider(patterns, name)) or ((), None)
    if found is None:
        return None
    stars = max(_model(entry).count("*") for entry in entries)
    if not stars:
        return _together(entries)
    # LiteLLM's patterns are not anchored at their end: what follows the match is dropped from the model.
    # It sends the whole name where the model has too few stars for the parts.
    matched = (found.string if len(found.groups()) > stars else found[0]).strip()
    # What it is called at the provider is the whole of it then, with or without the provider's name.
    named = any(_model(entry).startswith("*") for entry in entries)
    return Found(_with_provider(patterns, matched) if named else matched, entries)


def _best(patterns: Any, name: str) -> tuple[Sequence[Entry], re.Match[str]] | None:
    """Return the deployments of the wildcard that suits `name` best, and how it does."""
    matching = [
        (pattern, entries, found)
        for pattern, entries in patterns.patterns.items()
        if (found := re.match(pattern, name)) is not None
    ]
    if not matching:
        return None
    _, entries, found = max(matching, key=lambda matched: _specificity(matched[0]))
    return entries, found


def _specificity(pattern: str) -> tuple[int, int]:
    return len(pattern), sum(map(pattern.count, "*+?\\^$|()"))


def _with_provider(patterns: Any, name: str) -> str:
    """Return `name` with the provider that LiteLLM takes it to be of in front, unless it is there."""
    asked: list[str] = []
    # LiteLLM's own look-up, told that nothing matches, asks for one spelling after the other.
    type(patterns).get_pattern(SimpleNamespace(route=asked.append), name)
    provider = asked[-1].removesuffix(name)
    return name if name.startswith(provider) or provider == "None/" else asked[-1]
