"""The names of models that a configuration knows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from litellm_parallel_limits.cli.checks.reach import beginning
from litellm_parallel_limits.patterns import matches
from litellm_parallel_limits.tables import is_off, table

IN_DATABASE = "store_model_in_db"
"""LiteLLM's setting with which models are added while the proxy runs; in capitals its variable."""


@dataclass(frozen=True, slots=True)
class KnownModels:
    """The models of a configuration, each with all of its names, and the wildcards among them.

    They are `open` where there may be more than the configuration tells.
    """

    models: tuple[frozenset[str], ...]
    wildcards: tuple[str, ...]
    is_open: bool

    def may_meet(self, *lists: Sequence[str]) -> bool:
        """Whether there may be a model of which each of the lists of globs matches some name."""
        if self.is_open or any(all(matches(names, one) for one in lists) for names in self.models):
            return True
        return any(
            all(any(_may_overlap(wildcard, pattern) for pattern in one) for one in lists)
            for wildcard in self.wildcards
        )


def known_models(config: Mapping[Any, Any], environment: Mapping[str, str]) -> KnownModels:
    """Return what a configuration says of models."""
    entries = config.get("model_list")
    names = list(_names(entries if isinstance(entries, list) else []))
    router = table(config.get("router_settings"))
    aliases = list(_aliases(router))
    models = [one | {alias for alias, target in aliases if target in one} for one in names]
    models += [frozenset({alias}) for alias, _ in aliases]
    models += [frozenset({group}) for group in _routing_groups(router)]
    wildcards = {name for one in models for name in one if "*" in name}
    return KnownModels(tuple(models), tuple(sorted(wildcards)), not names or _is_open(config, environment))


def _names(entries: Sequence[Any]) -> Iterator[frozenset[str]]:
    """Yield what each deployment may be called."""
    for entry in map(table, entries):
        info = table(entry.get("model_info"))
        names = (
            entry.get("model_name"),
            table(entry.get("litellm_params")).get("model"),
            info.get("id"),
            info.get("team_public_model_name"),
        )
        found = frozenset(str(name) for name in names if isinstance(name, (str, int)))
        if found:
            yield found


def _aliases(router: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    for alias, target in table(router.get("model_group_alias")).items():
        if isinstance(alias, str):
            yield alias, target.get("model") if isinstance(target, Mapping) else target


def _routing_groups(router: Mapping[str, Any]) -> Iterator[str]:
    groups = router.get("routing_groups")
    for group in map(table, groups if isinstance(groups, list) else []):
        if isinstance(group.get("group_name"), str):
            yield group["group_name"]


def _is_open(config: Mapping[Any, Any], environment: Mapping[str, str]) -> bool:
    """Whether models come from a database, or any name is answered for by a default fallback."""
    told = table(config.get("general_settings")).get(IN_DATABASE, environment.get(IN_DATABASE.upper(), False))
    settings = (table(config.get("litellm_settings")), table(config.get("router_settings")))
    fallbacks = (one.get(name) for one in settings for name in ("fallbacks", "default_fallbacks"))
    return not is_off(told) or any(_has_default(one) for one in fallbacks)


def _has_default(fallbacks: object) -> bool:
    if not isinstance(fallbacks, list):
        return False
    return any(isinstance(one, str) or "*" in table(one) for one in fallbacks)


def _may_overlap(wildcard: str, pattern: str) -> bool:
    """Whether some name may be of both. LiteLLM puts a provider before names that have none."""
    mine, theirs = beginning(wildcard), beginning(pattern)
    if "/" not in theirs:
        return True
    return mine.startswith(theirs) or theirs.startswith(mine)
