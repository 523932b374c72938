"""What custom auth may say of a caller's limits, and ask."""

from __future__ import annotations

from typing import Any

import pytest

from litellm_parallel_limits.calls import caller
from litellm_parallel_limits.policy import Policy
from tests.litellm_objects import auth, imported

pytestmark = pytest.mark.versions


def ours(**fields: object) -> Any:
    """Return our auth object."""
    return imported("litellm_parallel_limits.auth").UserAPIKeyAuth(**fields)


def numbers(auth: Any) -> dict[str, int]:
    """Return the number of each limit that a caller meets."""
    return {limit.scope.limit: limit.capacity for limit in Policy().limits(caller(auth))}


def test_auth_is_litellms_own_with_two_numbers() -> None:
    """Our auth object is LiteLLM's in all else."""
    assert isinstance(ours(), type(auth()))
    assert ours(api_key="sk-x", user_id="u1").user_id == "u1"
    assert ours().user_max_parallel_requests is None
    assert ours().team_max_parallel_requests is None


def test_numbers_of_custom_auth_come_first() -> None:
    """The number that custom auth gives of a user or team comes before those of the records."""
    of = ours(
        user_id="u1",
        team_id="t1",
        user_max_parallel_requests=2,
        team_max_parallel_requests="3",
        metadata={"user_max_parallel_requests": 20},
        team_metadata={"team_max_parallel_requests": 30, "max_parallel_requests": 31},
    )
    assert numbers(of) == {"user": 2, "team": 3}


@pytest.mark.parametrize("bad", ["many", -1, True, [1], {"a": 1}, 1.5])
def test_bad_number_is_no_error(bad: object) -> None:
    """A value that is no number is kept by the auth object, and ignored by the limits."""
    of = ours(user_id="u1", user_max_parallel_requests=bad, metadata={"user_max_parallel_requests": 20})
    assert numbers(of) == {"user": 20}


def test_numbers_outlive_litellms_validation() -> None:
    """LiteLLM validates what custom auth returns: the numbers are still there."""
    of = ours(user_id="u1", user_max_parallel_requests=2)
    validated = type(auth()).model_validate(of)
    assert numbers(validated) == numbers(type(of)(**of.model_dump())) == {"user": 2}


def test_models_numbers_can_be_asked_for() -> None:
    """Custom auth can ask for the numbers by model that a key meets, merged from its three records."""
    of = auth(
        api_key="sk-x",
        metadata={"model_max_parallel_requests": {"a": 1, "b": "many"}},
        model_max_budget={"b": {"max_parallel_requests": "2"}, "c": {"max_budget": 1.0}},
        team_metadata={"model_max_parallel_requests": {"a": 7, "c": 3, "d-*": 4}},
    )
    table = imported("litellm_parallel_limits.auth").model_max_parallel_requests(of)
    assert table == {"a": 1, "b": 2, "c": 3, "d-*": 4}


def test_models_numbers_of_a_key_without_any() -> None:
    """A key of which nothing is said has an empty table."""
    assert imported("litellm_parallel_limits.auth").model_max_parallel_requests(auth()) == {}
