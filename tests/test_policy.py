"""Which limits a call meets, and which record its numbers come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from litellm_parallel_limits.built_in import BUILT_IN, merged_model_numbers, wanted_records
from litellm_parallel_limits.errors import TooManyLimitsError
from litellm_parallel_limits.limits import Limit, Scope
from litellm_parallel_limits.policy import MOST_SCOPES, OperatorLimit, Policy
from litellm_parallel_limits.sources import Call, Dimension, Identity, Record
from tests.json_values import json_values, texts

Records = Mapping[Record, Mapping[str, object]]

GPT_4 = Identity("gpt-4")
PARTIES: Mapping[Dimension, Identity] = {
    "key": Identity("k1", ("ci-key",)),
    "user": Identity("u1", ("ada@example.com",)),
    "team": Identity("t1", ("research",)),
    "organization": Identity("o1", ("acme",)),
    "project": Identity("p1"),
    "end_user": Identity("e1"),
}
TAG, DEPLOYMENT = Identity("batch"), Identity("d1")

KEY: Record = "key metadata"
BUDGET: Record = "key model_max_budget"
TEAM: Record = "team metadata"
AUTH: Record = "auth"

NUMBER = "max_parallel_requests"
BY_MODEL = "model_max_parallel_requests/gpt-4"

SOURCES: Mapping[str, tuple[tuple[Record, str], ...]] = {
    "api_key": ((KEY, NUMBER), (AUTH, NUMBER)),
    "model_per_key": ((KEY, BY_MODEL), (BUDGET, f"gpt-4/{NUMBER}"), (TEAM, BY_MODEL)),
    "model_per_team": ((TEAM, f"team_{BY_MODEL}"),),
    "user": ((AUTH, f"user_{NUMBER}"), (KEY, f"user_{NUMBER}"), ("user", NUMBER)),
    "model_per_user": (("user metadata", BY_MODEL),),
    "team": ((AUTH, f"team_{NUMBER}"), (TEAM, f"team_{NUMBER}"), (TEAM, NUMBER), ("team", NUMBER)),
    "team_member": (
        (TEAM, f"team_member_{NUMBER}"),
        ("membership budget", NUMBER),
        ("member default budget", NUMBER),
    ),
    "organization": (("organization metadata", NUMBER), ("organization budget", NUMBER)),
    "model_per_organization": (("organization metadata", BY_MODEL),),
    "project": (("project metadata", NUMBER),),
    "model_per_project": (("project metadata", BY_MODEL),),
    "end_user": (("customer budget", NUMBER),),
    "tag": (("tag budgets", f"batch/{NUMBER}"),),
    "model": (("model_info", BY_MODEL.partition("/")[2] + "/" + BY_MODEL.partition("/")[0]),),
    "deployment": (("deployments", f"d1/{NUMBER}"),),
}
"""Where the number of each limit is looked for, in this order."""

COUNTED_BY: Mapping[str, tuple[tuple[str, str], ...]] = {
    "api_key": (("key", "k1"),),
    "model_per_key": (("key", "k1"), ("model", "gpt-4")),
    "model_per_team": (("team", "t1"), ("model", "gpt-4")),
    "user": (("user", "u1"),),
    "model_per_user": (("user", "u1"), ("model", "gpt-4")),
    "team": (("team", "t1"),),
    "team_member": (("team", "t1"), ("user", "u1")),
    "organization": (("organization", "o1"),),
    "model_per_organization": (("organization", "o1"), ("model", "gpt-4")),
    "project": (("project", "p1"),),
    "model_per_project": (("project", "p1"), ("model", "gpt-4")),
    "end_user": (("end_user", "e1"),),
    "tag": (("tag", "batch"),),
    "model": (("model_group", "gpt-4"),),
    "deployment": (("deployment", "d1"),),
}

EACH_SOURCE = [(name, place) for name, sources in SOURCES.items() for place in range(len(sources))]


def call(records: Records | None = None, *models: Identity) -> Call:
    """Return a call of everybody, with a tag, for gpt-4 of one deployment, or for these models."""
    return Call(PARTIES, models or (GPT_4,), records or {}, (TAG,), models or (GPT_4,), (DEPLOYMENT,))


def records(*entries: tuple[tuple[Record, str], object]) -> Records:
    """Return records with these values, each at the path that follows its record."""
    written: dict[Record, dict[str, object]] = {}
    for (record, path), value in entries:
        place: dict[str, object] = written.setdefault(record, {})
        *tables, last = path.split("/")
        for table in tables:
            place = place.setdefault(table, {})  # type: ignore[assignment]
        place[last] = value
    return written


def numbers(call: Call) -> dict[str, int]:
    """Return the number of each limit that the call meets."""
    return {limit.scope.limit: limit.capacity for limit in Policy().limits(call)}


EVERYTHING = records(*((source, 5) for sources in SOURCES.values() for source in sources))


def test_every_limit_of_the_table_is_here() -> None:
    """There is a test beside each limit of LiteLLM's own names, and beside each record and dimension."""
    assert {limit.name for limit in BUILT_IN} == set(SOURCES) == set(COUNTED_BY)
    assert {record for sources in SOURCES.values() for record, _ in sources} == set(get_args(Record))
    assert {name for by in COUNTED_BY.values() for name, _ in by} == set(get_args(Dimension))


def test_every_limit_is_met_at_once() -> None:
    """A call of which every record says something meets every limit, in the order of the table."""
    assert [(limit.scope.limit, limit.scope.identities) for limit in Policy().limits(call(EVERYTHING))] == [
        (limit.name, COUNTED_BY[limit.name]) for limit in BUILT_IN
    ]


def test_no_record_is_no_limit() -> None:
    """A call of which no record says anything meets no limit."""
    assert Policy().limits(call()) == ()


@pytest.mark.parametrize(("name", "place"), EACH_SOURCE)
def test_first_source_with_a_number_wins(name: str, place: int) -> None:
    """A limit's number is that of the first of its sources that has one."""
    written = records(*((source, 10 + i) for i, source in enumerate(SOURCES[name]) if i >= place))
    assert Policy().limits(call(written)) == (Limit(Scope(name, COUNTED_BY[name]), 10 + place),)


@pytest.mark.parametrize(("name", "place"), EACH_SOURCE)
@pytest.mark.parametrize("invalid", [-1, True, 1.5, "many", [], {"gpt-4": 1}])
def test_invalid_value_falls_through(name: str, place: int, invalid: object) -> None:
    """A value that is no number is told of once, and the next source is asked."""
    told: list[str] = []
    sources = SOURCES[name]
    written = records(
        *((source, 10 + i) for i, source in enumerate(sources) if i != place), (sources[place], invalid)
    )
    met = Policy(on_invalid=told.append).limits(call(written))
    next_one = 0 if place else 1
    assert [limit.capacity for limit in met] == ([10 + next_one] if len(sources) > 1 else [])
    assert len(told) == (0 if place else 1)
    assert all(name in source and sources[place][0] in source for source in told)


@pytest.mark.parametrize(("name", "place"), EACH_SOURCE)
def test_null_falls_through(name: str, place: int) -> None:
    """Null is no number: the next source is asked, and nobody is told of a mistake."""
    told: list[str] = []
    sources = SOURCES[name]
    written = records(
        *((source, None) for source in sources[: place + 1]),
        *((source, 7) for source in sources[place + 1 :]),
    )
    met = Policy(on_invalid=told.append).limits(call(written))
    assert [limit.capacity for limit in met] == [7] * (place + 1 < len(sources))
    assert told == []


@pytest.mark.parametrize(("name", "place"), EACH_SOURCE)
def test_zero_blocks(name: str, place: int) -> None:
    """A 0 is a number like any other: no later source is asked."""
    sources = SOURCES[name]
    written = records((sources[place], 0), *((source, 7) for source in sources[place + 1 :]))
    assert numbers(call(written)) == {name: 0}


HUGE = 10**30
MOST = 2**53 - 1
VALUES = [
    pytest.param(None, None, False, id="null"),
    pytest.param(0, 0, False, id="0"),
    pytest.param(1, 1, False, id="1"),
    pytest.param("5", 5, False, id="text of a number"),
    pytest.param(" 5 ", 5, False, id="with spaces"),
    pytest.param(5.0, 5, False, id="whole float"),
    pytest.param(-1, None, True, id="-1"),
    pytest.param("-1", None, True, id="text of -1"),
    pytest.param(True, None, True, id="true"),
    pytest.param(False, None, True, id="false"),
    pytest.param(1.5, None, True, id="1.5"),
    pytest.param(float("nan"), None, True, id="nan"),
    pytest.param(float("inf"), None, True, id="inf"),
    pytest.param("x", None, True, id="x"),
    pytest.param("", None, True, id="empty text"),
    pytest.param([], None, True, id="list"),
    pytest.param(HUGE, MOST, False, id="huge"),
    pytest.param(str(HUGE), MOST, False, id="text of huge"),
    pytest.param("9" * 5_000, MOST, False, id="thousands of digits"),
]


@pytest.mark.parametrize(("name", "place"), EACH_SOURCE)
@pytest.mark.parametrize(("value", "number", "is_mistake"), VALUES)
def test_each_value_in_each_source(
    name: str, place: int, value: object, number: int | None, *, is_mistake: bool
) -> None:
    """A value sets the same number wherever it stands; a mistake is told of and left to later sources."""
    told: list[str] = []
    sources = SOURCES[name]
    later = sources[place + 1 :]
    written = records((sources[place], value), *((source, 7) for source in later))
    met = Policy(on_invalid=told.append).limits(call(written))
    expected = 7 if number is None and later else number
    assert [limit.capacity for limit in met] == ([] if expected is None else [expected])
    assert len(told) == is_mistake


@pytest.mark.parametrize("broken", ["text", 5, [1], True])
@pytest.mark.parametrize(
    ("record", "table"),
    [
        (KEY, "model_max_parallel_requests"),
        (TEAM, "team_model_max_parallel_requests"),
        ("user metadata", "model_max_parallel_requests"),
        ("organization metadata", "model_max_parallel_requests"),
        ("project metadata", "model_max_parallel_requests"),
    ],
)
def test_broken_table_is_an_invalid_value(record: Record, table: str, broken: object) -> None:
    """What should be a table by model and is none sets no limit, and is told of once."""
    told: list[str] = []
    assert Policy(on_invalid=told.append).limits(call({record: {table: broken}})) == ()
    assert len(told) == 1


@pytest.mark.parametrize("dimension", PARTIES)
def test_party_that_a_call_lacks_is_not_counted(dimension: Dimension) -> None:
    """A call without a party meets no limit that counts by it, and every other, whatever the records say."""
    without = {name: party for name, party in PARTIES.items() if name != dimension}
    met = numbers(replace(call(EVERYTHING), identities=without))
    assert set(met) == {name for name, by in COUNTED_BY.items() if dimension not in dict(by)}


def test_call_without_a_model_meets_what_counts_no_model() -> None:
    """A call for no model meets the limits that have to do with none."""
    without = call(EVERYTHING).without_models()
    of_models = {"model", "model_group", "deployment"}
    assert set(numbers(without)) == {name for name, by in COUNTED_BY.items() if not of_models & set(dict(by))}


def test_call_without_tags_meets_none_of_theirs() -> None:
    """A call without tags meets no limit of a tag."""
    assert set(numbers(replace(call(EVERYTHING), tags=()))) == set(SOURCES) - {"tag"}


def test_each_tag_is_counted_by_its_own_number() -> None:
    """A call of several tags holds a slot of each that has a number, found by its very name."""
    written: Records = {
        "tag budgets": {"a": {NUMBER: 1}, "b": {NUMBER: "x"}, "c": {NUMBER: 3}, "*": {NUMBER: 9}, "d": {}}
    }
    told: list[str] = []
    tagged = Call({}, (), written, tuple(map(Identity, "abcde")))
    met = Policy(on_invalid=told.append).limits(tagged)
    assert [(limit.scope.identities, limit.capacity) for limit in met] == [
        ((("tag", "a"),), 1),
        ((("tag", "c"),), 3),
    ]
    assert len(told) == 1


@pytest.mark.parametrize("name", ["model_per_user", "model_per_organization", "model_per_project"])
def test_model_tables_know_aliases_and_globs(name: str) -> None:
    """A table of models is looked up under the name sent, then under the group, then under globs."""
    ((record, _),) = SOURCES[name]
    table = {"g*": 4, "gpt-*": 3, "gpt-4": 2, "fast": 1}
    model = Identity("gpt-4", ("fast",))
    for pattern in ("fast", "gpt-4", "gpt-*", "g*"):
        met = numbers(call({record: {"model_max_parallel_requests": table}}, model))
        assert met == {name: table.pop(pattern)}


def test_deployments_and_groups_are_found_by_their_very_name() -> None:
    """A number of a deployment or of a model in `model_info` is that of no other, whatever it is called."""
    written: Records = {
        "deployments": {"*": {NUMBER: 1}, "d?": {NUMBER: 1}},
        "model_info": {"gpt-*": {"model_max_parallel_requests": 1}},
    }
    assert numbers(call(written)) == {}


def test_limits_that_count_by_one_dimension_may_be_asked_for() -> None:
    """Asked for those that count by something, a policy tells of no others, the operator's included."""
    policy = Policy((OperatorLimit("ours", 1, by=("deployment", "team")), OperatorLimit("all", 1)))
    met = policy.limits(call(EVERYTHING), by="deployment")
    assert [limit.scope.limit for limit in met] == ["deployment", "ours"]
    assert policy.counts_by("deployment")
    assert policy.counts_by("team")
    assert not policy.counts_by("key")


@pytest.mark.parametrize("more", [0, 1])
def test_request_meets_so_many_limits_at_most(more: int) -> None:
    """A call that stands in more counts than any request would is refused; one more or less decides it."""
    policy = Policy((OperatorLimit("each", 1, by=("tag",)),))
    tags = tuple(Identity(f"t{number}") for number in range(MOST_SCOPES + more))
    if not more:
        assert len(policy.limits(Call(tags=tags))) == MOST_SCOPES
        return
    with pytest.raises(TooManyLimitsError):
        policy.limits(Call(tags=tags))


def test_mode_and_failure_are_the_policys() -> None:
    """Limits from records are enforced, and survive an outage, as the policy says."""
    policy = Policy(mode="observe", on_store_failure="deny")
    (met,) = policy.limits(call({KEY: {"max_parallel_requests": 3}}))
    assert (met.mode, met.on_store_failure) == ("observe", "deny")


json_tables = st.dictionaries(texts, json_values, max_size=3)
by_model = st.dictionaries(st.sampled_from(["gpt-4", "gpt-*", "*"]) | texts, json_values, max_size=3)
any_records = st.fixed_dictionaries(
    {},
    optional={
        record: st.fixed_dictionaries(
            {},
            optional={
                path.partition("/")[0]: json_values | by_model
                for sources in SOURCES.values()
                for of, path in sources
                if of == record
            },
        )
        | json_tables
        for record in get_args(Record)
    },
)


@given(any_records)
@settings(deadline=None)
def test_any_record_is_survived(written: Records) -> None:
    """Whatever JSON stands in the records, the call meets limits of whole numbers, and nothing is raised."""
    told: list[str] = []
    met = Policy(on_invalid=told.append).limits(call(written))
    assert all(limit.capacity >= 0 for limit in met)
    assert len({limit.scope for limit in met}) == len(met)
    assert wanted_records(call(written)) <= set(get_args(Record))
    merged = merged_model_numbers(call(written))
    assert all(number >= 0 for number in merged.values())
