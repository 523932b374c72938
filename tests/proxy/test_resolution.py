"""Where the number of a key's model comes from, as a client sees it in the headers."""

from __future__ import annotations

from typing import Any

import pytest

from tests.rig.burst import Ask, burst
from tests.rig.identities import key
from tests.rig.litellm_version import OWN_METADATA, marks
from tests.rig.provider import Provider
from tests.rig.proxy import Proxy

pytestmark = pytest.mark.proxy

NUMBER = "x-ratelimit-model_per_key-limit-max_parallel_requests"
PER_MODEL = {"gpt-4": 5, "gpt-3.5-turbo": 10}

CASES: dict[str, tuple[dict[str, Any], str | None, str | None]] = {
    "key metadata": ({"metadata": {"model_max_parallel_requests": PER_MODEL}}, "5", "10"),
    "nothing set": ({}, None, None),
    "model_max_budget": (
        {"model_max_budget": {"gpt-4": {"max_parallel_requests": 3}, "gpt-3.5-turbo": {"budget_limit": 1.0}}},
        "3",
        None,
    ),
    "model_max_budget with null": (
        {"model_max_budget": {"gpt-4": {"max_parallel_requests": None}}},
        None,
        None,
    ),
    "team default": ({"team_metadata": {"model_max_parallel_requests": PER_MODEL}}, "5", "10"),
    "key over team": (
        {
            "metadata": {"model_max_parallel_requests": {"gpt-4": 2, "gpt-3.5-turbo": 2}},
            "team_metadata": {"model_max_parallel_requests": PER_MODEL},
        },
        "2",
        "2",
    ),
    "a key that lists one model inherits the team's number for the other": (
        {
            "metadata": {"model_max_parallel_requests": {"gpt-4": 2}},
            "team_metadata": {"model_max_parallel_requests": PER_MODEL},
        },
        "2",
        "10",
    ),
    "a key's glob over a team's exact name": (
        {
            "metadata": {"model_max_parallel_requests": {"gpt-*": 4}},
            "team_metadata": {"model_max_parallel_requests": PER_MODEL},
        },
        "4",
        "4",
    ),
}


OVER_TEAM = [case for case, (record, *_) in CASES.items() if record.keys() >= {"metadata", "team_metadata"}]


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=marks(OWN_METADATA if case in OVER_TEAM else None)) for case in CASES]
)
async def test_a_model_of_a_key_meets_the_number_of_the_first_source_that_has_one(
    operator_proxy: Proxy, provider: Provider, case: str
) -> None:
    """The key's metadata, its model_max_budget, then its team's metadata: for each model by itself."""
    record, gpt_4, gpt_35 = CASES[case]
    one = key(team_id="somebody", **record)
    seen = await burst(operator_proxy, provider, [Ask(one, "gpt-4"), Ask(one, "gpt-3.5-turbo")])
    assert [answer.headers.get(NUMBER) for answer in seen.answers] == [gpt_4, gpt_35]


async def test_a_changed_number_holds_from_the_next_request(
    operator_proxy: Proxy, provider: Provider
) -> None:
    """Lowering a limit evicts nobody, and refuses until enough have ended: there is no second pool."""
    user = {"user_id": "changing"}
    wide, narrow = key(**user, user_max_parallel_requests=3), key(**user, user_max_parallel_requests=1)
    seen = await burst(operator_proxy, provider, [Ask(wide), Ask(wide)])
    assert seen.statuses == {200: 2}
    seen = await burst(operator_proxy, provider, [Ask(narrow), Ask(narrow)])
    assert seen.statuses == {200: 1, 429: 1}
