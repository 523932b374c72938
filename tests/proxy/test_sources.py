"""What each value in each place where a number may stand does to the next request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

from tests.rig import rows
from tests.rig.burst import Ask, burst
from tests.rig.identities import key
from tests.rig.provider import Provider
from tests.rig.proxy import Proxy

pytestmark = pytest.mark.proxy

MODEL = "openai/gated"

VALUES: dict[str, tuple[object, int | None]] = {
    "null": (None, None),
    "0": (0, 0),
    "1": (1, 1),
    "text of a number": ("5", 5),
    "-1": (-1, None),
    "true": (True, None),
    "1.5": (1.5, None),
    "text": ("x", None),
    "huge": (10**30, 2**53 - 1),
}
"""Each value with the number it is by our rule, None if it sets no limit."""

Record = dict[str, Any]


def by_model(value: object) -> Record:
    """Return a table of numbers by model."""
    return {"model_max_parallel_requests": {MODEL: value}}


FREE: dict[str, Callable[[str, object], Record]] = {
    "api_key: key metadata": lambda _, v: {"metadata": {"max_parallel_requests": v}},
    "model_per_key: key metadata": lambda _, v: {"metadata": by_model(v)},
    "model_per_key: team metadata": lambda x, v: {"team_id": x, "team_metadata": by_model(v)},
    "model_per_team: team metadata": lambda x, v: {
        "team_id": x,
        "team_metadata": {"team_model_max_parallel_requests": {MODEL: v}},
    },
    "user: auth": lambda x, v: {"user_id": x, "user_max_parallel_requests": v},
    "user: key metadata": lambda x, v: {"user_id": x, "metadata": {"user_max_parallel_requests": v}},
    "model_per_user: user metadata": lambda x, v: {
        "user_id": x,
        "rows": rows.user(x, metadata=by_model(v)),
    },
    "team: auth": lambda x, v: {"team_id": x, "team_max_parallel_requests": v},
    "team: team metadata": lambda x, v: {"team_id": x, "team_metadata": {"team_max_parallel_requests": v}},
    "team_member: team metadata": lambda x, v: {
        "team_id": x,
        "user_id": x,
        "team_metadata": {"team_member_max_parallel_requests": v},
    },
    "organization: metadata": lambda x, v: {
        "org_id": x,
        "organization_metadata": {"max_parallel_requests": v},
    },
    "model_per_organization: metadata": lambda x, v: {"org_id": x, "organization_metadata": by_model(v)},
    "project: metadata": lambda x, v: {"project_id": x, "project_metadata": {"max_parallel_requests": v}},
    "model_per_project: metadata": lambda x, v: {"project_id": x, "project_metadata": by_model(v)},
}
"""Places where LiteLLM keeps whatever it is given."""

TYPED: dict[str, Callable[[str, object], tuple[Record, Record]]] = {
    "user: record": lambda x, v: ({"user_id": x, "rows": rows.user(x, v)}, {}),
    "team: record": lambda x, v: ({"team_id": x, "rows": rows.team(x, v)}, {}),
    "team_member: membership": lambda x, v: (
        {"team_id": x, "user_id": x, "rows": rows.member(x, x, v)},
        {},
    ),
    "organization: budget": lambda x, v: ({"org_id": x, "rows": rows.organization(x, v)}, {}),
    "end_user: budget": lambda x, v: ({"rows": rows.customer(x, v)}, {"user": x}),
    "tag: budget": lambda x, v: ({"rows": rows.tag(x, v)}, {"metadata": {"tags": [x]}}),
}
"""Places where LiteLLM keeps whole numbers only."""


async def limit_of(proxy: Proxy, provider: Provider, name: str, ask: Ask) -> int | None:
    """Return the number of the limit `name` that a request is told of, None if of none."""
    seen = await burst(proxy, provider, [ask])
    (answer,) = seen.answers
    if answer.status_code == 429:
        assert answer.headers["x-parallel-limit-name"] == name
        assert "0 of 0 in flight" in answer.text
        return 0
    assert answer.status_code == 200
    told = answer.headers.get(f"x-ratelimit-{name}-limit-max_parallel_requests")
    return None if told is None else int(told)


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("place", FREE)
async def test_value_in_metadata(place: str, value: str, memory_proxy: Proxy, provider: Provider) -> None:
    """Numbers hold, also as text; null and what is no number set no limit; nothing is a 500."""
    written, number = VALUES[value]
    ask = Ask(key(**FREE[place](uuid4().hex, written)), MODEL)
    assert await limit_of(memory_proxy, provider, place.partition(":")[0], ask) == number


@pytest.mark.parametrize("value", ["null", "0", "1", "-1", "huge"])
@pytest.mark.parametrize("place", TYPED)
async def test_value_in_a_record(place: str, value: str, memory_proxy: Proxy, provider: Provider) -> None:
    """What LiteLLM's own records can hold holds in the same way."""
    written, number = VALUES[value]
    record, body = TYPED[place](uuid4().hex, written)
    ask = Ask(key(**record), MODEL, body)
    assert await limit_of(memory_proxy, provider, place.partition(":")[0], ask) == number


async def test_bad_values_are_told_once_a_source(memory_proxy: Proxy, provider: Provider) -> None:
    """Each source of bad values has one line in the log, however many requests met it."""
    await burst(
        memory_proxy, provider, [Ask(key(**FREE[place](uuid4().hex, "x")), MODEL) for place in FREE] * 2
    )
    told = [line for line in memory_proxy.log().splitlines() if "ignored a value" in line]
    assert len(told) == len(set(told))
    assert all(any(place.partition(":")[0] in line for line in told) for place in FREE)
