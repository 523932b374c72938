"""Which models a call asks for, and what is said of their deployments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from litellm_parallel_limits.built_in import BY_MODEL
from litellm_parallel_limits.groups import deployments, group
from litellm_parallel_limits.model_info import Entry, deployment_id, is_counted, largest, said
from litellm_parallel_limits.patterns import is_pattern
from litellm_parallel_limits.sources import Call, Identity, Record


def asking_for(call: Call, name: str, sent: str, router: Any) -> Call:
    """Return `call` for the model `name`, for which the client sent the name `sent`.

    `router` is LiteLLM's, None where it has none. A model whose deployments are all left out by the
    operator is not counted. Where only one deployment can answer, its slot is taken with the others:
    LiteLLM does not always ask which one to choose.
    """
    team = call.identities["team"].id if "team" in call.identities else None
    entries = deployments(router, name, team)
    counted = [entry for entry in entries if is_counted(entry)]
    if entries and not counted:
        return call
    resolved = group(router, name, team)
    model = Identity(resolved, tuple(dict.fromkeys(other for other in (sent, name) if other != resolved)))
    call = replace(call, models=(model,))
    if any(map(said, counted)):
        call = _of_group(call, _group(counted, resolved), counted)
    return choosing(call, entries[0]) if len(entries) == 1 else call


def _of_group(call: Call, name: str, entries: Sequence[Entry]) -> Call:
    number = largest(said(entry).get(BY_MODEL) for entry in entries)
    records: dict[Record, Mapping[str, object]] = {**call.records, "model_info": {name: {BY_MODEL: number}}}
    return replace(call, groups=(Identity(name),), records=records)


def choosing(call: Call, entry: Entry) -> Call:
    """Return `call` for a deployment that the router may choose."""
    one = deployment_id(entry)
    return replace(
        call, deployments=(Identity(one),), records={**call.records, "deployments": {one: said(entry)}}
    )


def _group(entries: Sequence[Entry], resolved: str) -> str:
    """Return what the requests of a group are counted by: all the names of one wildcard together."""
    configured = str(entries[0].get("model_name"))
    return configured if is_pattern(configured) else resolved
