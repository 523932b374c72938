"""Which models and deployments a call is counted by, and which numbers the operator gave them."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from litellm_parallel_limits.model_info import deployment_id, is_counted, largest, said
from litellm_parallel_limits.models import asking_for, choosing
from litellm_parallel_limits.policy import Policy
from litellm_parallel_limits.settings import DeploymentSettings
from litellm_parallel_limits.sources import Call, Identity
from tests.json_values import json_values
from tests.litellm_objects import imported, warnings_of_its_own

pytestmark = pytest.mark.versions

CALL = Call({"key": Identity("k1")}, records={"key metadata": {"max_parallel_requests": 9}})


def entry(name: str, one: str, model: str | None = None, **limits: object) -> dict[str, Any]:
    """Return a deployment with the id `one`, of which the operator says these limits."""
    info = {"id": one, **({"parallel_limits": limits} if limits else {})}
    return {
        "model_name": name,
        "litellm_params": {"model": model or f"openai/{name}", "api_key": "unused"},
        "model_info": info,
    }


def router(*entries: Mapping[str, Any], **settings: Any) -> Any:
    """Return LiteLLM's router of these deployments."""
    with warnings_of_its_own():
        return imported("litellm").Router(model_list=[dict(one) for one in entries], **settings)


def met(router: Any, name: str, sent: str | None = None) -> dict[str, int]:
    """Return the number of each scope that a call for the model `name` meets, but for its key's."""
    call = asking_for(CALL, name, sent or name, router)
    limits = Policy().limits(call)
    return {limit.scope.key: limit.capacity for limit in limits if limit.scope.limit != "api_key"}


def test_without_a_router_a_name_is_its_own() -> None:
    """Where LiteLLM has no router, a call is for the model that it names, which has no deployment."""
    call = asking_for(CALL, "gpt-4", "gpt-4", None)
    assert call.models == (Identity("gpt-4"),)
    assert (call.groups, call.deployments) == ((), ())


def test_what_is_known_of_the_caller_stays() -> None:
    """Asking for a model changes nothing of what a call is otherwise."""
    call = asking_for(CALL, "m", "m", router(entry("m", "one", max_parallel_requests=1)))
    assert call.identities == CALL.identities
    assert call.records["key metadata"] == CALL.records["key metadata"]
    assert call.without_models().deployments == ()


def test_lone_deployment_is_taken_with_its_model() -> None:
    """Where only one deployment can answer, its slot is among those that the call takes."""
    alone = router(entry("m", "one", max_parallel_requests=3))
    assert met(alone, "m") == {"deployment;deployment=one": 3}


def test_one_of_several_is_left_to_the_router() -> None:
    """Where several deployments can answer, the router chooses first."""
    two = router(entry("m", "one", max_parallel_requests=3), entry("m", "two", max_parallel_requests=3))
    assert met(two, "m") == {}
    assert met(two, "one") == {"deployment;deployment=one": 3}


def test_deployment_is_the_same_by_every_name() -> None:
    """A lone deployment is one, whether its group, an alias of that or its own id is named."""
    alone = router(entry("m", "one", max_parallel_requests=3), model_group_alias={"alias": "m"})
    for name in ("m", "alias", "one"):
        assert met(alone, name) == {"deployment;deployment=one": 3}


@pytest.mark.parametrize(
    ("numbers", "holds"),
    [
        ((3,), 3),
        ((3, 5, 4), 5),
        ((None, 5), 5),
        (("7", 5), 7),
        ((0, None), 0),
        ((0, 2), 2),
        ((-1, 2), 2),
        (("many", True, 1.5), None),
        ((None, None), None),
        ((10**30, 1), 2**53 - 1),
    ],
)
def test_largest_number_of_a_model_holds(numbers: tuple[object, ...], holds: int | None) -> None:
    """Of several deployments that give their model a number, the largest sound one holds."""
    entries = (
        entry("m", f"d{place}", model_max_parallel_requests=number) for place, number in enumerate(numbers)
    )
    assert met(router(*entries), "m") == ({} if holds is None else {"model;model_group=m": holds})


def test_mistaken_number_is_told_of_where_no_other_holds() -> None:
    """A bad number of a model is told of, and sets no limit."""
    told: list[str] = []
    call = asking_for(CALL, "m", "m", router(entry("m", "one", model_max_parallel_requests="many")))
    assert [limit.scope.limit for limit in Policy(on_invalid=told.append).limits(call)] == ["api_key"]
    assert len(told) == 1
    assert "model" in told[0]


def test_limit_of_a_model_is_one_for_all_its_names() -> None:
    """A model's count is one, however it is called."""
    named = router(
        entry("m", "one", model_max_parallel_requests=2), entry("m", "two"), model_group_alias={"alias": "m"}
    )
    for name in ("m", "alias"):
        assert met(named, name) == {"model;model_group=m": 2}


def test_names_of_a_wildcard_share_its_model_limit() -> None:
    """All names that a wildcard answers for are counted together in its own limit, each apart elsewhere."""
    wild = router(
        entry("openai/*", "one", "openai/*", model_max_parallel_requests=2),
        entry("openai/*", "two", "openai/*"),
    )
    expected = {"model;model_group=openai%2F%2A": 2}
    assert met(wild, "openai/gpt-4") == met(wild, "openai/gpt-5") == expected
    calls = [asking_for(CALL, name, name, wild) for name in ("openai/gpt-4", "openai/gpt-5")]
    assert len({call.models for call in calls}) == 2


def test_models_are_apart() -> None:
    """A number of one model is none of another's."""
    two = router(entry("m", "one", model_max_parallel_requests=2), entry("n", "two"))
    assert met(two, "n") == {}
    assert met(two, "unknown") == {}


def test_names_of_a_model_are_those_sent_and_resolved() -> None:
    """A model is identified by its group, and known by what the client sent and what was asked for."""
    named = router(entry("m", "one"), model_group_alias={"alias": "m"})
    (model,) = asking_for(CALL, "alias", "sent", named).models
    assert model.id == "m"
    assert set(model.aliases) == {"alias", "sent"}
    (model,) = asking_for(CALL, "m", "m", named).models
    assert model.aliases == ()


def test_left_out_model_is_not_counted() -> None:
    """A model of which every deployment is left out has no model to be counted by, nor a deployment."""
    left_out = router(
        entry("m", "one", enabled=False, model_max_parallel_requests=1, max_parallel_requests=1)
    )
    call = asking_for(CALL, "m", "m", left_out)
    assert call == CALL
    assert met(left_out, "m") == {}


def test_left_out_deployment_leaves_the_others() -> None:
    """Where some deployments of a model are left out, it is counted, by what the others say."""
    some = router(
        entry("m", "one", enabled=False, model_max_parallel_requests=9),
        entry("m", "two", model_max_parallel_requests=2),
    )
    assert met(some, "m") == {"model;model_group=m": 2}


@pytest.mark.parametrize(
    "written", [False, "false", "False", "FALSE", "off", "no", "n", "f", "0", 0, " false "]
)
def test_everything_that_settings_take_for_no_leaves_out(written: object) -> None:
    """A deployment is left out by whatever the check of the settings takes for false."""
    try:
        is_no = not DeploymentSettings.model_validate({"enabled": written}).enabled
    except ValueError:
        is_no = True  # a mistake at the start: from a database it may come nevertheless
    assert is_no
    assert not is_counted(entry("m", "one", enabled=written))


@pytest.mark.parametrize("written", [True, "true", "on", "yes", 1, None, [], {}, "perhaps"])
def test_anything_else_is_counted(written: object) -> None:
    """A deployment is left out only where the operator says so."""
    assert is_counted(entry("m", "one", enabled=written))
    assert is_counted(entry("m", "one"))


def test_deployment_that_the_router_may_choose_is_looked_at_by_itself() -> None:
    """What is said of a deployment is met by a call that the router may send there, and by no other."""
    call = choosing(CALL, entry("m", "one", max_parallel_requests=4))
    assert [limit.scope.key for limit in Policy().limits(call, by="deployment")] == [
        "deployment;deployment=one"
    ]
    assert Policy().limits(choosing(call, entry("m", "two")), by="deployment") == ()


infos = json_values | st.fixed_dictionaries(
    {},
    optional={
        "id": json_values,
        "team_id": json_values,
        "team_public_model_name": json_values,
        "parallel_limits": json_values
        | st.fixed_dictionaries(
            {},
            optional={
                "enabled": json_values,
                "max_parallel_requests": json_values,
                "model_max_parallel_requests": json_values,
            },
        ),
    },
)


@given(st.lists(infos, min_size=1, max_size=3))
@settings(deadline=None)
def test_any_model_info_is_survived(hostile: list[object]) -> None:
    """Whatever stands in `model_info`, a call is admitted by whole numbers, and nothing is raised."""
    entries = [{"model_name": "m", "litellm_params": {"model": "m"}, "model_info": one} for one in hostile]
    for one in entries:
        assert isinstance(deployment_id(one), str)
        assert isinstance(is_counted(one), bool)
        assert isinstance(said(one), Mapping)
        assert all(limit.capacity >= 0 for limit in Policy().limits(choosing(CALL, one)))
    found = SimpleNamespace(
        model_names={"m"},
        model_id_to_deployment_index_map={},
        model_group_alias={},
        model_list=entries,
        team_model_to_deployment_indices={},
        model_name_to_deployment_indices={"m": list(range(len(entries)))},
    )
    call = asking_for(CALL, "m", "m", found)
    assert all(limit.capacity >= 0 for limit in Policy().limits(call))


@given(st.lists(json_values, max_size=5))
def test_largest_of_anything_is_a_number_or_one_of_them(values: list[object]) -> None:
    """The largest number is a whole one; where there is none, what is returned is told of as a mistake."""
    found = largest(values)
    assert found is None or (isinstance(found, int) and found >= 0) or any(found is one for one in values)
