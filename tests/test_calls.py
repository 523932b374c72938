"""How LiteLLM's objects are read as a call."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from litellm_parallel_limits.calls import caller, calls, key_hash, key_name
from litellm_parallel_limits.policy import Policy
from litellm_parallel_limits.sources import Dimension, Identity
from tests.json_values import json_values, texts
from tests.litellm_objects import auth, imported, warnings_of_its_own
from tests.rig.litellm_version import PROJECTS, needs

pytestmark = pytest.mark.versions

SECRET = "sk-0123456789abcdef"
CHAT = "acompletion"
RAW = "raw-secret-of-custom-auth"


def hashed(secret: str) -> str:
    """Return the hash by which LiteLLM knows a key."""
    return hashlib.sha256(secret.encode()).hexdigest()


@cache
def empty_router() -> Any:
    """Return LiteLLM's router, without a model."""
    with warnings_of_its_own():
        return imported("litellm").Router(model_list=[])


def router(aliases: object) -> Any:
    """Return LiteLLM's router with these aliases."""
    empty_router().model_group_alias = aliases
    return empty_router()


def models(
    auth: Any, model: object, *, body: Mapping[str, Any] | None = None, groups: object = None
) -> list[Identity]:
    """Return the models of a call for `model`, of which the client's body said `body`."""
    data = {
        "model": model,
        "proxy_server_request": {"url": "http://proxy/", "body": body or {"model": model}},
    }
    return [model for one in calls(auth, data, CHAT, router(groups)) for model in one.models]


def test_parties_are_those_of_the_auth_object() -> None:
    """Each party that LiteLLM knows is identified by its id, and may be named by its alias."""
    identities = caller(
        auth(
            api_key=SECRET,
            key_alias="ci-key",
            user_id="u1",
            user_email="ada@example.com",
            team_id="t1",
            team_alias="research",
            end_user_id="e1",
            org_id="o1",
        )
    ).identities
    assert identities == {
        "key": Identity(hashed(SECRET), ("ci-key",)),
        "user": Identity("u1", ("ada@example.com",)),
        "team": Identity("t1", ("research",)),
        "end_user": Identity("e1"),
        "organization": Identity("o1"),
    }


@needs(PROJECTS)
def test_projects_are_parties() -> None:
    """A project is identified by its id, and may be named by its alias, as an organization then may, too."""
    of = auth(org_id="o1", organization_alias="acme", project_id="p1", project_alias="apollo")
    assert caller(of).identities == {
        "organization": Identity("o1", ("acme",)),
        "project": Identity("p1", ("apollo",)),
    }


def test_unknown_parties_are_left_out() -> None:
    """A party without an id is none, also where it has an alias."""
    assert caller(auth(team_alias="research", user_email="ada@example.com", user_id="")).identities == {}


def test_numbers_are_looked_for_in_the_records_of_the_auth_object() -> None:
    """Every record that may hold a number is there, a budget as a plain table."""
    budget = SimpleNamespace(model_dump=lambda: {"max_parallel_requests": 3})
    of = SimpleNamespace(
        metadata={"a": 1},
        team_metadata={"b": 2},
        organization_metadata={"c": 3},
        project_metadata={"d": 4},
        model_max_budget={"gpt-4": budget},
        user_max_parallel_requests=4,
        team_max_parallel_requests="5",
    )
    assert caller(of).records == {
        "auth": {
            "max_parallel_requests": None,  # LiteLLM's to enforce until it is taken over
            "user_max_parallel_requests": 4,
            "team_max_parallel_requests": "5",
        },
        "key metadata": {"a": 1},
        "key model_max_budget": {"gpt-4": {"max_parallel_requests": 3}},
        "team metadata": {"b": 2},
        "organization metadata": {"c": 3},
        "project metadata": {"d": 4},
    }


@pytest.mark.parametrize("secret", [SECRET, RAW, "x", "A" * 64, "0" * 63, "g" * 64, "\ud800"])
def test_key_is_counted_by_its_hash(secret: str) -> None:
    """A key is its hash: as LiteLLM gives it, or made here where custom auth hands over the secret."""
    given = SimpleNamespace(api_key=secret, token=None)
    expected = hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()
    assert key_hash(given) == expected
    assert key_hash(SimpleNamespace(api_key=expected, token=None)) == expected


def test_key_of_litellms_is_hashed_once() -> None:
    """A key that LiteLLM has hashed already has the same name as the secret it came from."""
    assert key_hash(auth(api_key=SECRET)) == key_hash(SimpleNamespace(api_key=SECRET)) == hashed(SECRET)


def test_key_may_be_given_as_a_token() -> None:
    """Where there is only a token, that is the key; where there is nothing, there is no key."""
    assert key_hash(SimpleNamespace(token=hashed(SECRET))) == hashed(SECRET)
    assert key_hash(SimpleNamespace(api_key="", token="")) is None
    assert key_hash(None) is None


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"api_key": SECRET, "key_alias": "ci-key", "key_name": "sk-...cdef"}, "ci-key"),
        ({"api_key": SECRET, "key_name": "sk-...cdef"}, "sk-...cdef"),
        ({"api_key": SECRET}, hashed(SECRET)[:8]),
        ({"api_key": SECRET, "key_name": "my key"}, hashed(SECRET)[:8]),
        ({"api_key": RAW, "key_alias": RAW}, hashed(RAW)[:8]),
        ({"api_key": RAW, "key_alias": f"key {RAW}"}, hashed(RAW)[:8]),
        ({"api_key": RAW, "key_name": RAW}, hashed(RAW)[:8]),
        ({}, ""),
    ],
)
def test_key_is_called_by_its_public_name(fields: dict[str, str], name: str) -> None:
    """A key is shown by its alias, else its masked name, else the beginning of its hash."""
    assert key_name(auth(**fields)) == name


def test_secret_given_as_an_alias_is_not_shown() -> None:
    """An alias that is the key itself is no alias, also where LiteLLM has hashed the key."""
    of = auth(api_key=SECRET, key_alias=SECRET)
    assert key_name(of) == hashed(SECRET)[:8]
    assert SECRET not in str(caller(of).identities)


@pytest.mark.parametrize("field", ["api_key", "token"])
def test_raw_secret_is_in_no_name(field: str) -> None:
    """A key that custom auth hands over unhashed appears in nothing that is counted or shown."""
    of = auth(**{field: RAW, "key_alias": f"the key {RAW}", "key_name": RAW})
    assert RAW not in str(caller(of).identities)
    assert RAW not in key_name(of)


def test_model_is_the_one_asked_for() -> None:
    """A call is for the model that LiteLLM is about to call."""
    assert models(auth(), "gpt-4") == [Identity("gpt-4")]


@pytest.mark.parametrize("groups", [{"fast": "gpt-4"}, {"fast": {"model": "gpt-4", "hidden": False}}])
def test_routers_alias_is_its_group(groups: object) -> None:
    """A name that the router resolves is counted as its group, and known by both."""
    assert models(auth(), "fast", groups=groups) == [Identity("gpt-4", ("fast",))]
    assert models(auth(), "gpt-4", groups=groups) == [Identity("gpt-4")]


@pytest.mark.parametrize("field", ["aliases", "team_model_aliases"])
def test_alias_of_a_key_or_team_is_known_as_it_was_sent(field: str) -> None:
    """LiteLLM has resolved the aliases of keys and teams: what was sent is still known by its name."""
    of = auth(**{field: {"mine": "gpt-4"}})
    assert models(of, "gpt-4", body={"model": "mine"}) == [Identity("gpt-4", ("mine",))]


def test_aliases_of_team_and_router_are_both_known() -> None:
    """A name that leads by a team's alias to a router's alias to a group is known by all three."""
    of = auth(team_model_aliases={"mine": "fast"})
    found = models(of, "fast", body={"model": "mine"}, groups={"fast": "gpt-4"})
    assert found == [Identity("gpt-4", ("mine", "fast"))]


def test_body_names_no_model_beside_the_path() -> None:
    """Where the path says the model, another name in the body finds nobody else's number."""
    of = auth(
        aliases={"mine": "gpt-3"}, metadata={"model_max_parallel_requests": {"gpt-4": 1, "unlimited": 99}}
    )
    assert models(of, "gpt-4", body={"model": "unlimited"}) == [Identity("gpt-4")]
    assert models(of, "gpt-4", body={"model": "mine"}) == [Identity("gpt-4")]


def test_several_models_are_each_named() -> None:
    """A call for models parted by commas is for each of them, resolved each by itself."""
    found = models(auth(), "a, fast,,b", groups={"fast": "gpt-4"})
    assert found == [Identity("a"), Identity("gpt-4", ("fast",)), Identity("b")]


@pytest.mark.parametrize("model", [None, "", 5, ["gpt-4"], {"a": 1}, ",", " , "])
def test_call_may_be_for_no_model(model: object) -> None:
    """What is no name is no model; the caller is known all the same."""
    (found,) = calls(auth(user_id="u1"), {"model": model}, CHAT, None)
    assert found.models == ()
    assert found.identities == {"user": Identity("u1")}


def test_tools_that_are_called_are_no_models() -> None:
    """What LiteLLM calls the model of a tool's call is none."""
    (found,) = calls(auth(user_id="u1"), {"model": "MCP: echo"}, "call_mcp_tool", None)
    assert found.models == ()


def test_tags_are_those_of_the_request_and_of_its_records() -> None:
    """Tags may stand in the body or in either place where LiteLLM puts them; each counts once."""
    data = {"tags": ["a", 5, ""], "metadata": {"tags": ["b", "a"]}, "litellm_metadata": {"tags": ["c"]}}
    (found,) = calls(auth(), data, CHAT, None)
    assert found.tags == (Identity("a"), Identity("b"), Identity("c"))


FIELDS = (
    *("api_key", "token", "key_alias", "key_name", "user_id", "user_email", "team_id", "team_alias"),
    *(
        "end_user_id",
        "org_id",
        "organization_alias",
        "project_id",
        "project_alias",
        "metadata",
        "team_metadata",
        "organization_metadata",
        "project_metadata",
    ),
    *("model_max_budget", "aliases", "team_model_aliases"),
    *("user_max_parallel_requests", "team_max_parallel_requests"),
)
tables = st.dictionaries(texts, json_values, max_size=2)
any_auth = st.dictionaries(st.sampled_from(FIELDS), json_values | tables, max_size=6)
any_data = st.fixed_dictionaries(
    {},
    optional={
        "model": texts | json_values,
        "tags": json_values | st.lists(texts),
        "metadata": json_values | st.fixed_dictionaries({"tags": json_values | st.lists(texts)}),
        "proxy_server_request": json_values | st.fixed_dictionaries({"body": tables}),
    },
)


@given(any_auth, any_data, json_values | tables)
@settings(deadline=None)
def test_anything_is_a_call(fields: Mapping[str, Any], data: Mapping[str, Any], groups: object) -> None:
    """Whatever an auth object, a body and a router hold, there is a call of texts, and limits to meet."""
    of = SimpleNamespace(**fields)
    for found in calls(of, data, CHAT, router(groups)):
        for party in (*found.identities.values(), *found.models, *found.tags):
            assert all(isinstance(name, str) for name in party.names)
        Policy().limits(found)
    assert isinstance(key_name(of), str)


@given(st.sampled_from(["user_id", "team_id", "end_user_id", "org_id", "project_id"]), texts.filter(bool))
@settings(deadline=None)
def test_identities_are_as_they_came(field: str, identity: str) -> None:
    """No identity is changed on the way, so that none becomes another."""
    dimensions: Mapping[str, Dimension] = {
        "user_id": "user",
        "team_id": "team",
        "end_user_id": "end_user",
        "org_id": "organization",
        "project_id": "project",
    }
    found = caller(SimpleNamespace(**{field: identity})).identities
    assert found == {dimensions[field]: Identity(identity)}
