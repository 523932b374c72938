"""Which limits a call meets, and which record its numbers come from."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from litellm_parallel_limits.built_in import merged_model_numbers
from litellm_parallel_limits.limits import Limit, Scope
from litellm_parallel_limits.policy import Policy
from litellm_parallel_limits.sources import Call, Dimension, Identity, Record
from tests.json_values import json_values, texts

Records = Mapping[Record, Mapping[str, object]]

GPT_4 = Identity("gpt-4")
PARTIES: Mapping[Dimension, Identity] = {
    "key": Identity("k1", ("ci-key",)),
    "user": Identity("u1", ("ada@example.com",)),
    "team": Identity("t1", ("research",)),
}

KEY: Record = "key metadata"
BUDGET: Record = "key model_max_budget"
TEAM: Record = "team metadata"
AUTH: Record = "auth"

SOURCES: Mapping[str, tuple[tuple[Record, str], ...]] = {
    "api_key": ((KEY, "max_parallel_requests"),),
    "model_per_key": (
        (KEY, "model_max_parallel_requests/gpt-4"),
        (BUDGET, "gpt-4/max_parallel_requests"),
        (TEAM, "model_max_parallel_requests/gpt-4"),
    ),
    "model_per_team": ((TEAM, "team_model_max_parallel_requests/gpt-4"),),
    "user": ((AUTH, "user_max_parallel_requests"), (KEY, "user_max_parallel_requests")),
    "team": (
        (AUTH, "team_max_parallel_requests"),
        (TEAM, "team_max_parallel_requests"),
        (TEAM, "max_parallel_requests"),
    ),
}
"""Where the number of each limit is looked for, in this order."""

COUNTED_BY: Mapping[str, tuple[tuple[str, str], ...]] = {
    "api_key": (("key", "k1"),),
    "model_per_key": (("key", "k1"), ("model", "gpt-4")),
    "model_per_team": (("team", "t1"), ("model", "gpt-4")),
    "user": (("user", "u1"),),
    "team": (("team", "t1"),),
}

EACH_SOURCE = [(name, place) for name, sources in SOURCES.items() for place in range(len(sources))]


def call(records: Records | None = None, *models: Identity) -> Call:
    """Return a call of everybody for gpt-4, or for these models."""
    return Call(PARTIES, models or (GPT_4,), records or {})


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


@pytest.mark.parametrize("broken", ["text", 5, [1], True])
@pytest.mark.parametrize(
    ("record", "table"), [(KEY, "model_max_parallel_requests"), (TEAM, "team_model_max_parallel_requests")]
)
def test_broken_table_is_an_invalid_value(record: Record, table: str, broken: object) -> None:
    """What should be a table by model and is none sets no limit, and is told of once."""
    told: list[str] = []
    assert Policy(on_invalid=told.append).limits(call({record: {table: broken}})) == ()
    assert len(told) == 1


def test_party_that_a_call_lacks_is_not_counted() -> None:
    """A call without a user, team or key meets no limit of theirs, whatever the records say."""
    written = records(*((source, 5) for sources in SOURCES.values() for source in sources))
    assert Policy().limits(Call({}, (GPT_4,), written)) == ()


def test_call_without_a_model_meets_what_counts_no_model() -> None:
    """A call for no model meets the limits of its key, user and team only."""
    written = records(*((source, 5) for sources in SOURCES.values() for source in sources))
    assert set(numbers(Call(PARTIES, (), written))) == {"api_key", "user", "team"}


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
        for record in (AUTH, KEY, BUDGET, TEAM)
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
    merged = merged_model_numbers(call(written))
    assert all(number >= 0 for number in merged.values())
