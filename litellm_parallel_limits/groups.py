"""Which model group LiteLLM's router takes a name for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from litellm_parallel_limits.tables import table


def group(router: Any, name: str, team: str | None = None) -> str:  # noqa: ARG001
    """Return the group whose deployments answer for `name`; a name the router does not know is its own.

    A client may name a group, an alias of one, a deployment's id, or, where no wildcard or default
    answers for it, the model behind a deployment: each is counted with the group.
    """
    target = table(getattr(router, "model_group_alias", None)).get(name)
    alias = target.get("model") if isinstance(target, Mapping) else target
    if isinstance(alias, str) and alias:
        return alias
    if router is None or name in router.model_names:
        return name
    if router.has_model_id(name):
        deployment = router.get_deployment(model_id=name)
        return name if deployment is None else str(deployment.model_name)
    return _group_of_model(router, name) or name


def deployments(router: Any, name: str, team: str | None = None) -> Sequence[Mapping[str, Any]]:
    """Return the configured deployments that may answer for `name`, as the router keeps them."""
    wanted = group(router, name, team)
    configured: Sequence[Mapping[str, Any]] = getattr(router, "model_list", None) or ()
    indices = table(getattr(router, "model_name_to_deployment_indices", None)).get(wanted)
    if indices is not None:
        return [configured[index] for index in indices if index < len(configured)]
    return [entry for entry in configured if entry.get("model_name") == wanted]


def _group_of_model(router: Any, model: str) -> str | None:
    if model not in router.deployment_names or router.default_deployment is not None:
        return None
    if router.pattern_router.route(model):
        return None
    named = (entry for entry in router.model_list if table(entry.get("litellm_params")).get("model") == model)
    return next((str(entry["model_name"]) for entry in named), None)
