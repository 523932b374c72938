"""Which number a table of models has for the model that a call asks for."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from litellm_parallel_limits.built_in import merged_model_numbers
from litellm_parallel_limits.policy import Policy
from litellm_parallel_limits.sources import Call, Identity, Record

Table = Mapping[str, object]

TABLE = "model_max_parallel_requests"


def keys_call(
    *models: str | Identity, key: object = None, budget: Table | None = None, team: object = None
) -> Call:
    """Return a key's call for `models` with the tables of its key, its budget and its team."""
    wanted = tuple(Identity(model) if isinstance(model, str) else model for model in models)
    records: dict[Record, Mapping[str, object]] = {
        "key metadata": {TABLE: key},
        "key model_max_budget": budget or {},
        "team metadata": {TABLE: team},
    }
    return Call({"key": Identity("k1"), "team": Identity("t1")}, wanted, records)


def numbers(call: Call) -> dict[str, int]:
    """Return the number of each model that the call meets a limit of."""
    return {dict(limit.scope.identities)["model"]: limit.capacity for limit in Policy().limits(call)}


def one_in(value: object) -> Table:
    """Return a budget of gpt-4 that gives this number of requests."""
    return {"gpt-4": {"budget_limit": 10.0, "max_parallel_requests": value}}


CASES = [
    pytest.param(
        keys_call("gpt-4", "gpt-3.5-turbo", key={"gpt-4": 5, "gpt-3.5-turbo": 10}),
        {"gpt-4": 5, "gpt-3.5-turbo": 10},
        id="key metadata",
    ),
    pytest.param(keys_call("gpt-4"), {}, id="nothing set"),
    pytest.param(keys_call("gpt-4", budget=one_in(4)), {"gpt-4": 4}, id="budget"),
    pytest.param(keys_call("gpt-4", budget={"gpt-4": {"budget_limit": 10.0}}), {}, id="budget without"),
    pytest.param(keys_call("gpt-4", budget=one_in(None)), {}, id="budget of null"),
    pytest.param(keys_call("gpt-4", team={"gpt-4": 3}), {"gpt-4": 3}, id="team default"),
    pytest.param(keys_call("gpt-4", key={"gpt-4": 5}, team={"gpt-4": 3}), {"gpt-4": 5}, id="key over team"),
    pytest.param(
        keys_call("gpt-4", key={"gpt-4": 5}, budget=one_in(4)), {"gpt-4": 5}, id="key metadata over budget"
    ),
    pytest.param(
        keys_call("gpt-4", budget=one_in(4), team={"gpt-4": 3}), {"gpt-4": 4}, id="budget over team"
    ),
    pytest.param(
        keys_call("a", "b", key={"a": 5}, team={"a": 3, "b": 2}),
        {"a": 5, "b": 2},
        id="team for what the key leaves out",
    ),
]


@pytest.mark.parametrize(("call", "expected"), CASES)
def test_number_of_a_model_per_key(call: Call, expected: dict[str, int]) -> None:
    """A key's number of a model is its own, else its budget's, else its team's, model by model."""
    assert numbers(call) == expected


@pytest.mark.parametrize(("call", "expected"), CASES)
def test_merged_table_says_the_same(call: Call, expected: dict[str, int]) -> None:
    """The table that custom auth is given has the numbers that the policy finds."""
    assert merged_model_numbers(call) == expected


def test_sources_come_before_names() -> None:
    """A key's glob beats the exact name in its team's table."""
    assert numbers(keys_call("gpt-4", key={"gpt-*": 5}, team={"gpt-4": 3})) == {"gpt-4": 5}


def test_sent_name_comes_before_the_group() -> None:
    """The number is looked up under the name sent, then under the group, then under globs."""
    model = Identity("group", ("sent",))
    table = {"s*": 4, "sen*": 3, "group": 2, "sent": 1}
    for name in ("sent", "group", "sen*", "s*"):
        assert numbers(keys_call(model, key=table)) == {"group": table.pop(name)}
    assert numbers(keys_call(model, key=table)) == {}


def test_aliases_share_the_count_of_their_group() -> None:
    """Whatever name was sent, requests are counted by the group it resolves to."""
    table = {"fast": 1, "gpt-4": 2}
    (by_alias,) = Policy().limits(keys_call(Identity("gpt-4", ("fast",)), key=table))
    (by_name,) = Policy().limits(keys_call("gpt-4", key=table))
    assert by_alias.scope == by_name.scope
    assert (by_alias.capacity, by_name.capacity) == (1, 2)


def test_several_models_are_each_counted() -> None:
    """A call for several models holds a slot of each that has a number."""
    assert numbers(keys_call("a", "b", "c", key={"a": 1, "c": 3})) == {"a": 1, "c": 3}


def test_one_model_by_two_names_is_counted_once() -> None:
    """A call that names a group twice holds one slot of it, at the lower number."""
    call = keys_call(Identity("gpt-4", ("fast",)), "gpt-4", key={"fast": 1, "gpt-4": 2})
    (limit,) = Policy().limits(call)
    assert limit.capacity == 1


def test_models_are_apart() -> None:
    """A number is of one model; another is none of its business."""
    assert numbers(keys_call("gpt-4o", key={"gpt-4": 5})) == {}


def test_invalid_number_of_one_model_leaves_the_others() -> None:
    """A mistake in a table falls through for the model it stands at, and for no other."""
    call = keys_call("a", "b", key={"a": "many", "b": 2}, team={"a": 3, "b": 4})
    assert numbers(call) == merged_model_numbers(call) == {"a": 3, "b": 2}


def test_merged_table_tells_what_each_name_meets() -> None:
    """Each name and glob of the sources stands in the merged table with the number that it meets."""
    call = keys_call(key={"gpt-*": 5}, team={"gpt-4": 3, "gpt-4*": 2, "claude": 1})
    assert merged_model_numbers(call) == {"gpt-*": 5, "gpt-4": 5, "gpt-4*": 5, "claude": 1}


def test_merged_table_tells_what_a_mistake_leaves() -> None:
    """A bad value at a name lets the next source answer for it, also in the merged table."""
    call = keys_call("gpt-4", key={"gpt-4": "bad", "*": 5}, team={"gpt-4": 3})
    assert numbers(call) == {"gpt-4": 3}
    assert merged_model_numbers(call) == {"gpt-4": 3, "*": 5}


numbers_or_null = st.none() | st.integers(0, 3) | st.sampled_from(["1", "2"])
NAMES = ("a", "ab", "abc", "b")


def tables(*names: str, values: st.SearchStrategy[object] = numbers_or_null) -> st.SearchStrategy[Table]:
    """Return tables that may have these names."""
    return st.dictionaries(st.sampled_from(names), values)


with_mistakes = tables(*NAMES, values=numbers_or_null | st.sampled_from(["many", -1]))
with_globs = tables(*NAMES, "a*", "ab*", "*")


@given(with_mistakes, with_mistakes, with_mistakes)
@settings(deadline=None)
def test_merged_table_agrees_with_the_policy(key: Table, budget: Table, team: Table) -> None:
    """The merged table has, for every model, the number that the policy finds in the three."""
    entries = {model: {"max_parallel_requests": number} for model, number in budget.items()}
    call = keys_call(*NAMES, key=key, budget=entries, team=team)
    assert merged_model_numbers(call) == numbers(call)


@given(with_globs, with_globs)
@settings(deadline=None)
def test_merged_globs_agree_with_the_policy(key: Table, team: Table) -> None:
    """What is looked up in the merged table is what the policy finds in the two it was made of."""
    call = keys_call(*NAMES, key=key, team=team)
    assert numbers(keys_call(*NAMES, key=merged_model_numbers(call))) == numbers(call)


@pytest.mark.parametrize("names", [(1, "gpt-4"), ("gpt-4", 1), (None, "gpt-*"), ("gpt-*", None)])
def test_names_that_are_no_text_are_ignored(names: tuple[str, str]) -> None:
    """A table that has come from YAML may have names that are no text: they name no model."""
    first, second = names
    call = keys_call("gpt-4", key={first: 5}, team={second: 3})
    assert list(numbers(call)) == ["gpt-4"]
    assert len(merged_model_numbers(call)) == 1
