"""Which models a call asks for, and what is said of their deployments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from litellm_parallel_limits.built_in import BY_MODEL
from litellm_parallel_limits.groups import Found, find
from litellm_parallel_limits.model_info import Entry, deployment_id, is_counted, largest, said
from litellm_parallel_limits.patterns import is_pattern
from litellm_parallel_limits.sources import Call, Identity
from litellm_parallel_limits.tables import table


def asking_for(call: Call, name: str, sent: str, router: Any) -> Call:
    """Return `call` for the model `name`, for which the client sent the name `sent`.

    `router` is LiteLLM's, None where it has none. A model whose deployments are all left out by the
    operator is not counted. Where only one deployment can answer, its slot is taken with the others:
    LiteLLM does not always ask which one to choose.
    """
    found = find(router, name, call.team)
    if found.entries and not any(map(is_counted, found.entries)):
        return call
    groups = (found.name, *found.others)
    numbers: dict[str, Mapping[str, object]] = {}
    for one in groups:
        numbers |= _model_number(found if one == name else find(router, one, call.team), call.team)
    call = replace(
        call,
        models=tuple(_model(one, (sent, name)) for one in groups),
        groups=tuple(map(Identity, numbers)),
        records={**call.records, "model_info": numbers} if numbers else call.records,
    )
    return choosing(call, found.entries[0]) if len(found.entries) == 1 else call


def _model(group: str, names: Sequence[str]) -> Identity:
    return Identity(group, tuple(dict.fromkeys(name for name in names if name != group)))


def _model_number(found: Found, team: str | None) -> Mapping[str, Mapping[str, object]]:
    """Return the number of a model, empty if it has none.

    It is counted by its group, all the names of one wildcard together, and each team's own apart.
    """
    entries = [entry for entry in found.entries if is_counted(entry)]
    number = largest(said(entry).get(BY_MODEL) for entry in entries)
    if number is None:
        return {}
    info = table(entries[0].get("model_info"))
    configured = str(info.get("team_public_model_name") or entries[0].get("model_name"))
    counted_by = configured if is_pattern(configured) else found.name
    return {f"{team}/{counted_by}" if info.get("team_id") else counted_by: {BY_MODEL: number}}


def choosing(call: Call, entry: Entry) -> Call:
    """Return `call` for a deployment that the router may choose."""
    one = deployment_id(entry)
    return replace(
        call, deployments=(Identity(one),), records={**call.records, "deployments": {one: said(entry)}}
    )
