"""Which group a name is counted with."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from litellm_parallel_limits.groups import group


def router(*, wildcard: bool = False, default: bool = False) -> Any:
    """Return a router with one group of one deployment, and perhaps an answer for every other name."""
    entry = {
        "model_name": "gpt-4",
        "litellm_params": {"model": "openai/gpt-4-up"},
        "model_info": {"id": "d1"},
    }
    return SimpleNamespace(
        model_group_alias={"smart": "gpt-4", "hidden": {"model": "gpt-4", "hidden": True}},
        model_names={"gpt-4"},
        model_list=[entry],
        deployment_names=["openai/gpt-4-up"],
        default_deployment=entry if default else None,
        has_model_id=lambda name: name == "d1",
        get_deployment=lambda model_id: SimpleNamespace(model_name="gpt-4") if model_id == "d1" else None,
        pattern_router=SimpleNamespace(route=lambda _: [entry] if wildcard else None),
    )


@pytest.mark.parametrize("name", ["gpt-4", "smart", "hidden", "d1", "openai/gpt-4-up"])
def test_every_name_that_leads_to_a_group_is_counted_with_it(name: str) -> None:
    """The group, its aliases, a deployment's id and the model behind it are one."""
    assert group(router(), name) == "gpt-4"


@pytest.mark.parametrize("other", ["wildcard", "default"])
def test_a_name_that_others_answer_is_its_own(other: str) -> None:
    """Where a wildcard or a default deployment answers, the model behind a group is no name of it."""
    found = router(**{other: True})
    assert group(found, "openai/gpt-4-up") == "openai/gpt-4-up"


def test_an_unknown_name_is_its_own() -> None:
    """So it is before LiteLLM has a router."""
    assert group(router(), "nobody") == "nobody"
    assert group(None, "gpt-4") == "gpt-4"
