"""What the operator may set, and how a mistake is named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from litellm_parallel_limits.errors import ConfigurationError
from litellm_parallel_limits.limits import Limit, Scope
from litellm_parallel_limits.settings import DeploymentSettings, Settings, check_deployments, read
from litellm_parallel_limits.sources import Call, Dimension, Identity
from tests.json_values import json_values, texts

OURS: Mapping[str, Any] = {"name": "ours", "max_parallel_requests": 1}
"""The least that a limit needs."""

BUILT_IN = (
    *("api_key", "model_per_key", "user", "model_per_user", "team", "model_per_team", "team_member"),
    *("organization", "model_per_organization", "project", "model_per_project"),
    *("end_user", "tag", "model", "deployment"),
)
DIMENSIONS = ("key", "user", "team", "end_user", "organization", "project", "model")


def one(**entries: object) -> dict[str, Any]:
    """Return a section of one limit with these entries."""
    return {"limits": [{**OURS, **entries}]}


def mistakes(section: object, environment: Mapping[str, str] | None = None) -> list[str]:
    """Return what is said of a section that cannot be used, a line for each mistake."""
    with pytest.raises(ConfigurationError) as error:
        read(section, environment or {})
    return str(error.value).splitlines()


@pytest.mark.parametrize("section", [None, {}])
def test_nothing_set_enforces_what_records_say(section: object) -> None:
    """Without settings the limits from records are enforced, and there are no others."""
    found = read(section, {})
    assert (found.enabled, found.mode, found.store, found.lease_ttl) == (True, "enforce", "auto", 30.0)
    assert (found.on_store_failure, found.store_timeout_ms, found.limits) == ("share", 250, ())


def test_everything_set_is_read() -> None:
    """Each setting is as it was written."""
    section = {
        "enabled": False,
        "mode": "observe",
        "store": "redis",
        "lease_ttl": 4.5,
        "on_store_failure": "deny",
        "store_timeout_ms": 100,
        "take_over_key_limit": True,
        "wait": {"max_seconds": 5.0, "max_waiting": 7, "fair_by": "team"},
    }
    assert read(section, {}) == Settings.model_validate(section)
    assert read(section, {}).model_dump(exclude={"host_path"}) == {**section, "limits": ()}


def test_limit_of_the_operators_becomes_policy() -> None:
    """A limit is met as it was written."""
    section = one(
        by=["user"], models=["gpt-*"], where={"team": ["research"]}, mode="observe", on_store_failure="allow"
    )
    parties: Mapping[Dimension, Identity] = {"user": Identity("u1"), "team": Identity("t1", ("research",))}
    expected = Limit(Scope("ours", (("user", "u1"),)), 1, "observe", "allow")
    assert read(section, {}).policy().limits(Call(parties, (Identity("gpt-4"),))) == (expected,)


def test_limit_takes_its_mode_from_the_section() -> None:
    """A limit without a mode or a behaviour of its own has the section's."""
    section = {**one(), "mode": "observe", "on_store_failure": "deny"}
    assert read(section, {}).policy().limits(Call()) == (Limit(Scope("ours"), 1, "observe", "deny"),)


def test_limits_from_records_have_the_sections_mode() -> None:
    """The section's mode and behaviour hold for the limits that come from records."""
    policy = read({"mode": "observe", "on_store_failure": "allow"}, {}).policy()
    call = Call({"key": Identity("k1")}, (), {"key metadata": {"max_parallel_requests": 2}})
    assert [(limit.mode, limit.on_store_failure) for limit in policy.limits(call)] == [("observe", "allow")]


@pytest.mark.parametrize("field", ["models", "where"])
def test_lone_name_needs_no_list(field: str) -> None:
    """One name or glob may stand by itself where a list is meant."""
    entries: dict[str, dict[str, object]] = {
        "models": {"models": "gpt-4"},
        "where": {"where": {"model": "gpt-4"}},
    }
    policy = read(one(**entries[field]), {}).policy()
    assert policy.limits(Call(models=(Identity("gpt-4"),)))
    assert not policy.limits(Call(models=(Identity("gpt-3"),)))


@pytest.mark.parametrize(("written", "number"), [(0, 0), (3, 3), ("5", 5), (" 7 ", 7), (2.0, 2)])
def test_number_is_whole(written: object, number: int) -> None:
    """A number of the operator's follows the rule of all numbers."""
    (limit,) = read(one(max_parallel_requests=written), {}).policy().limits(Call())
    assert limit.capacity == number


def test_null_sets_no_limit() -> None:
    """A limit of null is as if it were not there, but for its name."""
    assert read(one(max_parallel_requests=None), {}).policy().limits(Call()) == ()


@pytest.mark.parametrize(
    ("section", "entry", "allowed"),
    [
        ([], "parallel_limits", "table"),
        ("enforce", "parallel_limits", "table"),
        ({"enabled": "perhaps"}, "parallel_limits.enabled", "boolean"),
        ({"mode": "log"}, "parallel_limits.mode", "'enforce' or 'observe'"),
        ({"store": "sql"}, "parallel_limits.store", "'auto', 'memory', 'host' or 'redis'"),
        ({"lease_ttl": 2.9}, "parallel_limits.lease_ttl", "greater than or equal to 3"),
        ({"lease_ttl": float("inf")}, "parallel_limits.lease_ttl", "finite"),
        ({"lease_ttl": "soon"}, "parallel_limits.lease_ttl", "valid number"),
        ({"on_store_failure": "open"}, "parallel_limits.on_store_failure", "'share', 'allow' or 'deny'"),
        ({"store_timeout_ms": 0}, "parallel_limits.store_timeout_ms", "greater than or equal to 10"),
        ({"store_timeout_ms": 1.5}, "parallel_limits.store_timeout_ms", "valid integer"),
        ({"limits": {}}, "parallel_limits.limits", "valid"),
        ({"limits": [3]}, "parallel_limits.limits[0]", "valid dictionary"),
        ({"limits": [{"name": "a"}]}, "parallel_limits.limits[0].max_parallel_requests", "required"),
        ({"limits": [{"max_parallel_requests": 1}]}, "parallel_limits.limits[0].name", "required"),
        ({"limits": [OURS, {"name": "a"}]}, "parallel_limits.limits[1].max_parallel_requests", "required"),
        (one(max_parallel_requests=-1), "parallel_limits.limits[0].max_parallel_requests", "from 0 on"),
        (one(max_parallel_requests=True), "parallel_limits.limits[0].max_parallel_requests", "from 0 on"),
        (one(max_parallel_requests=1.5), "parallel_limits.limits[0].max_parallel_requests", "from 0 on"),
        (one(max_parallel_requests="x"), "parallel_limits.limits[0].max_parallel_requests", "from 0 on"),
        (one(name="Ours"), "parallel_limits.limits[0].name", "[a-z][a-z0-9_-]{0,62}"),
        (one(name="ours\n"), "parallel_limits.limits[0].name", "[a-z][a-z0-9_-]{0,62}"),
        (one(name="a" * 64), "parallel_limits.limits[0].name", "[a-z][a-z0-9_-]{0,62}"),
        (one(by=["team", "usr"]), "parallel_limits.limits[0].by[1]", "'key', 'user', 'team'"),
        (one(by="user"), "parallel_limits.limits[0].by", "valid list"),
        (one(models=[1]), "parallel_limits.limits[0].models[0]", "valid string"),
        (one(where={"team": [1]}), "parallel_limits.limits[0].where.team[0]", "valid string"),
        (one(where={"usr": "a"}), "parallel_limits.limits[0].where.usr", "'key', 'user', 'team'"),
        (one(where={"team": []}), "parallel_limits.limits[0].where.team", "at least 1 item"),
        (one(where=["team"]), "parallel_limits.limits[0].where", "valid dictionary"),
        (one(mode="log"), "parallel_limits.limits[0].mode", "'enforce' or 'observe'"),
        (one(on_store_failure=1), "parallel_limits.limits[0].on_store_failure", "'share', 'allow' or 'deny'"),
    ],
)
def test_mistake_names_its_entry_and_what_is_allowed(section: object, entry: str, allowed: str) -> None:
    """A mistake is told by the path of its entry, and with what may stand there."""
    (mistake,) = mistakes(section)
    assert mistake.startswith(entry)
    assert allowed in mistake.removeprefix(entry)


def test_path_of_a_mistake_ends_where_the_entry_ends() -> None:
    """The path of an entry is what the operator wrote, and nothing of how it is read."""
    assert mistakes(one(where={"usr": "a"}))[0].startswith("parallel_limits.limits[0].where.usr: ")


def test_unknown_entry_is_a_mistake() -> None:
    """A setting that does not exist is named, with those that do."""
    (mistake,) = mistakes({"lease_tll": 30})
    assert mistake.startswith("parallel_limits.lease_tll: unknown")
    assert "lease_ttl" in mistake


def test_unknown_entry_of_a_limit_is_a_mistake() -> None:
    """An entry that limits do not have is named, with those that they have."""
    (mistake,) = mistakes(one(max_parallel_request=1))
    assert mistake.startswith("parallel_limits.limits[0].max_parallel_request: unknown")
    assert "max_parallel_requests" in mistake


@pytest.mark.parametrize("name", BUILT_IN)
def test_names_of_litellms_own_limits_are_taken(name: str) -> None:
    """An operator's limit cannot be called what a limit of LiteLLM's is called, or will be."""
    (mistake,) = mistakes({"limits": [OURS, {**OURS, "name": name}]})
    assert mistake.startswith("parallel_limits.limits[1]")
    assert f"'{name}'" in mistake


def test_name_given_twice_is_a_mistake() -> None:
    """Two limits of one name are told of by the name, and where the second stands."""
    (mistake,) = mistakes({"limits": [OURS, {**OURS, "name": "other"}, OURS]})
    assert mistake.startswith("parallel_limits.limits[2]")
    assert "'ours'" in mistake


@pytest.mark.parametrize("name", ["a", "gpt4-per-key", "a_b-9", "a" * 63])
def test_name_may_be_anything_else(name: str) -> None:
    """A name is up to 63 small letters, digits, dashes and underscores."""
    assert read(one(name=name), {}).limits[0].name == name


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_dimension_may_be_counted_by_and_asked_for(dimension: str) -> None:
    """`by` and `where` know everybody that LiteLLM knows, and the model."""
    limit = read(one(by=[dimension], where={dimension: ["a*"]}), {}).limits[0]
    assert limit.by == (dimension,)
    assert limit.where == {dimension: ("a*",)}


def test_every_mistake_is_told() -> None:
    """Several mistakes are told together, a line each."""
    section = {"mode": "log", "limits": [{**OURS, "by": ["usr"]}, {"name": "B"}]}
    entries = [mistake.partition(": ")[0] for mistake in mistakes(section)]
    assert entries == [
        "parallel_limits.mode",
        "parallel_limits.limits[0].by[0]",
        "parallel_limits.limits[1].name",
        "parallel_limits.limits[1].max_parallel_requests",
    ]


def test_mistake_shows_what_was_written() -> None:
    """A mistake shows the value, cut where it is long, on one line."""
    assert "'log'" in mistakes({"mode": "log"})[0]
    (mistake,) = mistakes({"mode": "x\n" * 1_000})
    assert len(mistake) < 200


@pytest.mark.parametrize(
    ("variable", "text", "field", "value"),
    [
        ("ENABLED", "false", "enabled", False),
        ("MODE", "observe", "mode", "observe"),
        ("STORE", "memory", "store", "memory"),
        ("LEASE_TTL", "4.5", "lease_ttl", 4.5),
        ("ON_STORE_FAILURE", "deny", "on_store_failure", "deny"),
        ("STORE_TIMEOUT_MS", "100", "store_timeout_ms", 100),
    ],
)
def test_environment_comes_before_the_file(variable: str, text: str, field: str, value: object) -> None:
    """A variable of the environment overrides the setting of its name, and only that."""
    section = {"mode": "enforce", "lease_ttl": 9, **one()}
    found = read(section, {"LITELLM_PARALLEL_LIMITS_" + variable: text, "OTHER": "1"})
    expected = {**read(section, {}).model_dump(), field: value}
    assert found.model_dump() == expected


@pytest.mark.parametrize("variable", ["LITELLM_PARALLEL_LIMITS_STOR", "LITELLM_PARALLEL_LIMITS_LIMITS"])
def test_unknown_variable_is_a_mistake(variable: str) -> None:
    """A variable that looks like ours and is none is named, with those that are."""
    with pytest.raises(ConfigurationError, match=f"{variable}: unknown; allowed: .*_STORE, "):
        read({}, {variable: "redis"})


def test_mistake_in_the_environment_names_the_variable() -> None:
    """A mistake in a variable is told by its name, whatever the file says."""
    (mistake,) = mistakes({"mode": "observe"}, {"LITELLM_PARALLEL_LIMITS_MODE": "log"})
    assert mistake.startswith("LITELLM_PARALLEL_LIMITS_MODE: ")
    assert "'enforce' or 'observe'" in mistake


sections = st.dictionaries(
    st.sampled_from(list(Settings.model_fields)) | texts | st.integers(),
    json_values
    | st.lists(st.dictionaries(texts | st.sampled_from(["name", "by", "where"]), json_values), max_size=2),
    max_size=4,
)


@given(json_values | sections)
@settings(deadline=None)
def test_any_section_is_settings_or_a_mistake(section: object) -> None:
    """Whatever stands in the file, it is read or it is a mistake that names its entry."""
    try:
        found = read(section, {})
    except ConfigurationError as error:
        told = str(error)
    else:
        told = "" if isinstance(found, Settings) else "nothing"
    assert not told or told.startswith("parallel_limits")


def deployment(limits: object) -> dict[str, Any]:
    """Return a deployment of which the operator says these limits."""
    return {"model_name": "m", "litellm_params": {"model": "m"}, "model_info": {"parallel_limits": limits}}


@pytest.mark.parametrize(
    "model_list",
    [
        None,
        [],
        {},
        "text",
        [None, 5, "m", [], {}],
        [{"model_info": None}, {"model_info": []}, {"model_info": {"parallel_limits": None}}],
        [deployment({})],
        [deployment({"enabled": False}), deployment({"enabled": "off"})],
        [deployment({"max_parallel_requests": 0, "model_max_parallel_requests": "5"})],
        [deployment({"max_parallel_requests": None, "model_max_parallel_requests": 2.0})],
        [deployment({"max_parallel_requests": 10**30})],
    ],
)
def test_deployments_without_a_mistake_pass(model_list: object) -> None:
    """Whatever LiteLLM's list of models is, only our part of it is looked at."""
    check_deployments(model_list)


@pytest.mark.parametrize(
    ("limits", "entry", "allowed"),
    [
        ([], "", "valid dictionary"),
        (5, "", "valid dictionary"),
        ({"enabled": "perhaps"}, ".enabled", "boolean"),
        ({"max_parallel_requests": -1}, ".max_parallel_requests", "from 0 on"),
        ({"max_parallel_requests": True}, ".max_parallel_requests", "from 0 on"),
        ({"max_parallel_requests": 1.5}, ".max_parallel_requests", "from 0 on"),
        ({"model_max_parallel_requests": "x"}, ".model_max_parallel_requests", "from 0 on"),
        ({"model_max_parallel_requests": {"m": 1}}, ".model_max_parallel_requests", "from 0 on"),
        (
            {"max_parallel_request": 1},
            ".max_parallel_request",
            "unknown; allowed: enabled, max_parallel_requests",
        ),
        ({"limits": []}, ".limits", "unknown; allowed: enabled, max_parallel_requests"),
    ],
)
def test_mistake_in_a_deployment_names_its_entry(limits: object, entry: str, allowed: str) -> None:
    """A mistake in `model_info` is told by where it stands in LiteLLM's list, and what may stand there."""
    with pytest.raises(ConfigurationError) as error:
        check_deployments([deployment({}), deployment(limits)])
    (told,) = str(error.value).splitlines()
    path = f"model_list[1].model_info.parallel_limits{entry}: "
    assert told.startswith(path)
    assert allowed in told.removeprefix(path)


def test_every_mistake_of_a_deployment_is_told() -> None:
    """Several mistakes in one deployment are told together, a line each."""
    with pytest.raises(ConfigurationError) as error:
        check_deployments([deployment({"max_parallel_requests": -1, "enabled": "perhaps", "x": 1})])
    assert len(str(error.value).splitlines()) == 3


def test_deployment_is_counted_by_nothing_of_its_own() -> None:
    """Where nothing is said of a deployment it is counted, and has no number."""
    nothing = DeploymentSettings()
    assert nothing.enabled
    assert nothing.max_parallel_requests is None
    assert nothing.model_max_parallel_requests is None


@given(st.lists(json_values | st.builds(deployment, json_values), max_size=3) | json_values)
@settings(deadline=None)
def test_any_list_of_models_passes_or_names_a_mistake(model_list: object) -> None:
    """Whatever LiteLLM's list of models is, it passes, or a mistake in our part of it is named."""
    try:
        check_deployments(model_list)
    except ConfigurationError as error:
        told = str(error)
    else:
        told = ""
    assert not told or told.startswith("model_list[")
