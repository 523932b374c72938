"""How long a call may wait, whose turn it takes, and how urgent it is."""

from __future__ import annotations

import pytest
from hypothesis import given

from litellm_parallel_limits.limits import LONGEST_WAIT_SECONDS, Wait
from litellm_parallel_limits.policy import OperatorLimit, Policy
from litellm_parallel_limits.sources import Call, Dimension, Identity
from litellm_parallel_limits.wait_rules import MOST_URGENT, PRIORITY, SECONDS, WaitRule
from tests.json_values import json_values

RULE = WaitRule(30, 7, "user")
USER: dict[Dimension, Identity] = {"user": Identity("ann;b")}
LIMIT = OperatorLimit("pool", 1, wait=RULE)
STRICT = OperatorLimit("strict", 1)
TEAM = {"max_parallel_requests": 5}


def call(key: dict[str, object] | None = None, team: dict[str, object] | None = None) -> Call:
    """Return a call of a user of a team that has a limit, with these metadata."""
    return Call(
        {**USER, "team": Identity("t")},
        records={"key metadata": key or {}, "team metadata": {**TEAM, **(team or {})}},
    )


def waits(policy: Policy, one: Call) -> dict[str, Wait | None]:
    """Return how the call waits for each of its limits."""
    return {limit.scope.limit: limit.wait for limit in policy.limits(one)}


def test_each_limit_has_its_own_rule() -> None:
    """Those of records have the section's; a limit of the operator's that says nothing is not waited for."""
    policy = Policy((LIMIT, STRICT), wait=WaitRule(5, 9, None))
    flow = ";user=ann%3Bb"
    assert waits(policy, call()) == {"team": Wait(5, 9, ""), "pool": Wait(30, 7, flow), "strict": None}


def test_nobody_waits_unless_told() -> None:
    """Without any rule everything is refused at once."""
    assert waits(Policy((STRICT,)), call()) == {"team": None, "strict": None}


def test_who_lacks_the_identity_takes_turns_with_the_others_that_lack_it() -> None:
    """They are one flow."""
    (limit,) = Policy((LIMIT,)).limits(Call())
    assert limit.wait == Wait(30, 7, "")


def test_key_says_how_long_it_waits_before_its_team() -> None:
    """In the place of the rule's seconds, and for records where there is no rule; never for strict limits."""
    policy = Policy((LIMIT, STRICT))
    of_key = waits(policy, call({SECONDS: 3}, {SECONDS: 4}))
    of_team = waits(policy, call({}, {SECONDS: "4"}))
    assert [wait and wait.seconds for wait in of_key.values()] == [3, 3, None]
    assert [wait and wait.seconds for wait in of_team.values()] == [4, 4, None]


def test_a_key_may_say_that_it_does_not_wait() -> None:
    """With 0."""
    assert set(waits(Policy((LIMIT,), wait=RULE), call({SECONDS: 0})).values()) == {None}


def test_nobody_waits_longer_than_anybody_may() -> None:
    """Whatever a record says."""
    found = waits(Policy((LIMIT,)), call({SECONDS: 1e9}))["pool"]
    assert found is not None
    assert found.seconds == LONGEST_WAIT_SECONDS


@pytest.mark.parametrize(
    ("key", "team", "priority"),
    [
        ({}, {}, 0),
        ({PRIORITY: 3}, {PRIORITY: 9}, 3),
        ({}, {PRIORITY: "-2"}, -2),
        ({PRIORITY: 1e9}, {}, MOST_URGENT),
    ],
)
def test_priority_of_the_key_then_of_the_team(
    key: dict[str, object], team: dict[str, object], priority: int
) -> None:
    """0 where neither says, and never further from it than makes sense."""
    assert Policy().priority(call(key, team)) == priority


@given(json_values, json_values)
def test_bad_values_are_told_and_passed_over(seconds: object, priority: object) -> None:
    """Whatever an admin has written, no request fails for it."""
    told: list[str] = []
    policy = Policy((LIMIT,), on_invalid=told.append)
    one = call({SECONDS: seconds, PRIORITY: priority})
    policy.limits(one)
    assert -MOST_URGENT <= policy.priority(one) <= MOST_URGENT
    assert set(told) <= {f"{SECONDS}: key metadata", f"{PRIORITY}: key metadata"}


@pytest.mark.parametrize("value", ["soon", True, -1, [3], float("nan"), 10**400, {}])
def test_what_is_no_number_of_seconds_is_told(value: object) -> None:
    """And the next source is asked."""
    told: list[str] = []
    policy = Policy((LIMIT,), on_invalid=told.append)
    found = waits(policy, call({SECONDS: value}, {SECONDS: 4}))["pool"]
    assert found is not None
    assert (found.seconds, told) == (4, [f"{SECONDS}: key metadata"])
