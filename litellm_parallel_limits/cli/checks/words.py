"""What a limit does, in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from litellm_parallel_limits.cli.text import counted
from litellm_parallel_limits.patterns import is_pattern
from litellm_parallel_limits.settings import DeploymentSettings, LimitSettings, Settings, WaitSettings

RESOURCES = frozenset({"model", "deployment"})
"""What has requests, but sends none."""

CALLED = {"end_user": "customer"}
"""Dimensions that have another name in words."""


def sentence(limit: LimitSettings, settings: Settings) -> str:
    """Return what a limit of the operator's does."""
    observed = (limit.mode or settings.mode) == "observe"
    number, where = limit.max_parallel_requests, _where(limit)
    if number is None:
        return "sets no limit: its number is null"
    if number == 0:
        whom = f"every request{_to(limit.models)}{where and f' where {where}'}"
        return f"{whom} is {'noted, and admitted' if observed else 'refused'}"
    may = f"{_who(limit.by)} may have {counted(number, 'request')}{_to(limit.models)} in flight"
    only = where and f", only where {where}"
    return f"{may}{_counted(limit)}{only}; one more {_one_more(limit.wait, observed=observed)}"


def of_deployment(settings: DeploymentSettings, model: str) -> str:
    """Return what is said of a deployment of `model`."""
    if not settings.enabled:
        return f"this deployment of {model} is left out of all limits that have to do with models"
    said = []
    if settings.max_parallel_requests is not None:
        said.append(
            f"{counted(settings.max_parallel_requests, 'request')} may be in flight in this deployment"
        )
    if settings.model_max_parallel_requests is not None:
        said.append(f"{counted(settings.model_max_parallel_requests, 'request')} in all of {model}")
    return ", and ".join(said) or "sets no limit"


def _who(by: Sequence[str]) -> str:
    parties = [CALLED.get(one, one) for one in by if one not in RESOURCES]
    if not parties:
        return "everybody together"
    return f"each {parties[0]}" if len(parties) == 1 else f"each combination of {_listed(parties, 'and')}"


def _to(models: Sequence[str]) -> str:
    return f" to {_listed(models, 'or')}" if models else ""


def _counted(limit: LimitSettings) -> str:
    if not RESOURCES.isdisjoint(limit.by):
        return f", counted for each {_listed([CALLED.get(one, one) for one in limit.by], 'and')}"
    if not limit.models:
        return "" if "model" in limit.where else ", over all models"
    several = len(limit.models) > 1 or is_pattern(limit.models[0])
    return ", all of these models together" if several else ""


def _where(limit: LimitSettings) -> str:
    said = [f"the {CALLED.get(one, one)} is {_listed(names, 'or')}" for one, names in limit.where.items()]
    return _listed(said, "and") if said else ""


def _one_more(wait: WaitSettings | None, *, observed: bool) -> str:
    if observed:
        return "is noted, and admitted"
    if wait is None or wait.max_seconds == 0:
        return "is refused"
    order = (
        f"{CALLED.get(wait.fair_by, wait.fair_by)}s by turns" if wait.fair_by else "first come, first served"
    )
    return f"waits up to {wait.max_seconds:g} s ({order}, {wait.max_waiting} waiting at most)"


def _listed(names: Iterable[str], last: str) -> str:
    *others, final = names
    return f"{', '.join(others)} {last} {final}" if others else final
