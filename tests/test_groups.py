"""Which group a name is counted with, and the deployments that answer for it, by LiteLLM's own router."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litellm_parallel_limits.groups import find
from tests.litellm_objects import imported, warnings_of_its_own
from tests.rig.litellm_version import NAMED_ROUTING_GROUPS, needs

pytestmark = pytest.mark.versions

ALIASES = {"smart": "gpt-4", "hidden": {"model": "gpt-4", "hidden": True}, "to-wild": "openai/x"}


def entry(name: str, model: str, one: str, **info: str) -> dict[str, Any]:
    """Return a deployment with the id `one`, as a configuration has it."""
    return {
        "model_name": name,
        "litellm_params": {"model": model, "api_key": "unused"},
        "model_info": {"id": one, **info},
    }


NAMED = [
    entry("gpt-4", "openai/gpt-4-up", "first"),
    entry("gpt-4", "openai/gpt-4-other", "second"),
    entry("solo", "openai/solo-up", "alone"),
    entry("model_name_red_1", "openai/red-1", "red-1", team_id="red", team_public_model_name="own"),
    entry("model_name_red_2", "openai/red-2", "red-2", team_id="red", team_public_model_name="own"),
    entry("model_name_blue_1", "openai/blue-1", "blue-1", team_id="blue", team_public_model_name="own"),
    entry("model_name_red_3", "openai/*", "red-3", team_id="red", team_public_model_name="mine/*"),
]
WILD = [
    entry("openai/*", "openai/*", "any"),
    entry("gem-*-x", "openai/gem-*-x", "inside"),
    entry("fixed-*", "openai/fixed", "fixed"),
    entry("*meta*", "openai/meta*", "parts"),
]


def router(models: Sequence[Mapping[str, Any]], **settings: Any) -> Any:
    """Return LiteLLM's router of these deployments."""
    of = imported("litellm").Router
    with warnings_of_its_own():
        return of(model_list=[dict(model) for model in models], model_group_alias=ALIASES, **settings)


def with_default_fallback() -> Any:
    """Return a router that sends names which nobody knows to gpt-4."""
    return router(NAMED, default_fallbacks=["gpt-4"])


def group(router: Any, name: str, team: str | None = None) -> str:
    """Return what requests for `name` are counted by."""
    return find(router, name, team).name


def groups(router: Any, name: str, team: str | None = None) -> tuple[str, ...]:
    """Return every group that may answer for `name`."""
    found = find(router, name, team)
    return (found.name, *found.others)


def deployments(router: Any, name: str, team: str | None = None) -> Sequence[Mapping[str, Any]]:
    """Return the deployments that may answer for `name`."""
    return find(router, name, team).entries


@pytest.fixture(scope="module")
def named() -> Any:
    """A router without wildcards."""
    return router(NAMED)


@pytest.fixture(scope="module")
def wild() -> Any:
    """A router with wildcards beside named groups."""
    return router(NAMED + WILD)


def knows_teams(found: Any) -> bool:
    """Whether LiteLLM is so new that it keeps what teams call their deployments."""
    return hasattr(found, "team_model_to_deployment_indices")


def ids(found: Sequence[Mapping[str, Any]]) -> set[str]:
    """Return the ids of deployments."""
    return {one["model_info"]["id"] for one in found}


@pytest.mark.parametrize("name", ["gpt-4", "smart", "hidden", "first", "second", "openai/gpt-4-up"])
def test_every_name_that_leads_to_a_group_is_counted_with_it(named: Any, name: str) -> None:
    """The group, its aliases, its deployments' ids and the models behind them are one."""
    assert group(named, name) == "gpt-4"


@pytest.mark.parametrize("name", ["own", "model_name_red_1", "model_name_red_2", "red-1", "openai/red-2"])
def test_a_team_is_counted_by_the_name_it_calls_its_model(named: Any, name: str) -> None:
    """A team's public name, LiteLLM's own names for its deployments and their ids are one."""
    assert group(named, name, "red") == "own"


def test_two_teams_may_call_different_models_the_same(named: Any) -> None:
    """Each has its own deployments under the name; who is of neither has none."""
    assert ids(deployments(named, "own", "red")) == {"red-1", "red-2"}
    assert ids(deployments(named, "own", "blue")) == {"blue-1"}
    assert deployments(named, "own", "green") == ()


@pytest.mark.parametrize(
    ("name", "counted_by"),
    [
        ("openai/x", "openai/x"),
        ("openai/solo-up", "openai/solo-up"),
        ("to-wild", "openai/x"),
        ("openai/x\nand more", "openai/x"),
        ("openai/x ", "openai/x"),
        ("gpt-3.5-turbo", "openai/gpt-3.5-turbo"),
        ("gem-1-x", "gem-1-x"),
        ("gem-1-x-and-more", "gem-1-x"),
        ("fixed-1", "fixed-*"),
        ("fixed", "fixed-*"),  # the deployment's id
        ("a-meta-b", "a-meta-b"),
        ("nobody", "nobody"),
        ("OpenAI/x", "OpenAI/x"),
    ],
)
def test_the_names_of_a_wildcard_are_counted_by_the_model_they_lead_to(
    wild: Any, name: str, counted_by: str
) -> None:
    """What LiteLLM drops of a name, or adds to it, makes no other model of it."""
    if name == "openai/solo-up" and not knows_teams(wild):
        counted_by = "solo"  # a wildcard did not come before the model of a deployment yet
    assert group(wild, name) == counted_by


@pytest.mark.parametrize("name", ["gpt-3.5-turbo", "openai/gpt-3.5-turbo", "gpt-3.5-turbo\n?"])
def test_a_wildcard_for_every_provider_counts_with_the_provider(name: str) -> None:
    """Where the name itself says the provider, LiteLLM asks the same model with and without it."""
    assert group(router([entry("*", "*", "all")]), name) == "openai/gpt-3.5-turbo"


def test_a_teams_wildcard_is_for_the_team(wild: Any) -> None:
    """Others have no such names."""
    assert group(wild, "mine/x\n?", "red") == "mine/x"
    assert ids(deployments(wild, "mine/x", "red")) == {"red-3"}
    assert not deployments(wild, "mine/x", "blue")


def test_the_default_fallback_answers_for_names_that_nobody_knows() -> None:
    """They are all counted with it."""
    found = with_default_fallback()
    assert [group(found, name) for name in ("nobody", "GPT-4", "gpt-4 ")] == ["gpt-4"] * 3
    assert ids(deployments(found, "nobody")) == {"first", "second"}


def test_a_default_deployment_answers_for_each_name_apart() -> None:
    """It sends the name on, so each is its own; names that somebody answers for do not come to it."""
    found = router(NAMED)
    found.default_deployment = entry("*", "openai/any", "default")
    assert [group(found, name) for name in ("smart", "nobody")] == ["gpt-4", "nobody"]
    assert ids(deployments(found, "nobody")) == {"default"}


@needs(NAMED_ROUTING_GROUPS)
def test_a_routing_group_is_a_group_of_its_own() -> None:
    """It is counted apart from its members, whose deployments answer for it; an alias may stand for it."""
    fast = {"group_name": "fast", "models": ["gpt-4", "solo"], "routing_strategy": "simple-shuffle"}
    found = router(NAMED, routing_groups=[fast])
    found.model_group_alias["quick"] = "fast"
    assert [group(found, name) for name in ("fast", "quick", "gpt-4")] == ["fast", "fast", "gpt-4"]
    assert ids(deployments(found, "fast")) == {"first", "second", "alone"}


def test_a_model_may_stand_behind_several_groups() -> None:
    """LiteLLM sends a request for the model to a deployment of any; one for a group stays there."""
    found = router([entry("gold", "openai/up", "g"), entry("silver", "openai/up", "s")])
    assert groups(found, "openai/up") == ("gold", "silver")
    assert group(found, "openai/up") == "gold"
    assert ids(deployments(found, "openai/up")) == {"g", "s"}
    assert groups(found, "silver") == ("silver",)


def test_an_unknown_name_is_its_own(named: Any) -> None:
    """So it is before LiteLLM has a router, and with one that is not as we know it."""
    assert group(named, "nobody") == "nobody"
    assert [group(odd, "gpt-4") for odd in (None, object(), SimpleNamespace(model_names=None))] == [
        "gpt-4"
    ] * 3
    assert deployments(None, "gpt-4") == ()


def test_the_deployments_are_those_that_the_router_keeps(named: Any) -> None:
    """They are no copies of them."""
    assert all(one is kept for one, kept in zip(deployments(named, "smart"), named.model_list, strict=False))


@given(st.text(), st.none() | st.text())
def test_no_name_is_too_odd(wild: Any, name: str, team: str | None) -> None:
    """Whatever a client sends has a name to be counted by."""
    assert isinstance(group(wild, name, team), str)
    assert all("model_name" in one for one in deployments(wild, name, team))


ASKED = [
    *(
        (name, None)
        for name in ("gpt-4", "smart", "hidden", "first", "openai/gpt-4-up", "openai/x", "fixed-1")
    ),
    *(
        (name, None)
        for name in ("gpt-3.5-turbo", "openai/x\n?", "openai/x ", "to-wild", "a-meta-b", "gem-1-x?")
    ),
    *((name, "red") for name in ("gpt-4", "smart", "own", "model_name_red_1", "red-1", "mine/x", "openai/x")),
    ("own", "blue"),
    ("nobody", None),
]


@pytest.mark.parametrize(("name", "team"), ASKED)
@pytest.mark.parametrize("setting", ["named", "wild", "with_default_fallback"])
async def test_the_router_agrees(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, setting: str, name: str, team: str | None
) -> None:
    """LiteLLM offers no deployment but ours, and what it then calls the model is counted as the name was."""
    found = (
        with_default_fallback() if setting == "with_default_fallback" else request.getfixturevalue(setting)
    )
    asked, offered = await _offered(found, name, team, monkeypatch)
    assert group(found, asked, team) == group(found, name, team)
    assert offered <= ids(deployments(found, name, team))


async def _offered(
    found: Any, name: str, team: str | None, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, set[str]]:
    """Return the model that LiteLLM's filter hears of when a client names `name`, and the ids it gets."""
    heard = [name]

    class Listening(imported("litellm.integrations.custom_logger").CustomLogger):  # type: ignore[misc]
        async def async_filter_deployments(self, model: str, healthy_deployments: Any, **_: Any) -> Any:
            heard.append(model)
            return healthy_deployments

    monkeypatch.setattr(imported("litellm"), "callbacks", [Listening()])
    kwargs = {"metadata": {"user_api_key_team_id": team}}
    model = (team and found.map_team_model(name, team)) or name  # so the proxy asks the router
    by_model = name in found.deployment_names and not knows_teams(found)
    try:
        offered = await found.async_get_healthy_deployments(model, kwargs, specific_deployment=by_model)
    except imported("litellm").BadRequestError:
        return name, set()
    return heard[-1], ids([offered] if isinstance(offered, dict) else offered)
