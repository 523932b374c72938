"""What the status page says of a snapshot."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from litellm_parallel_limits.limits import Scope
from litellm_parallel_limits.status import Document, document
from litellm_parallel_limits.stores import Holding, Snapshot

NOW = 100_000
TTL = 30.0
HOLDING = Holding(
    Scope("model_per_key", (("key", "a1b2c3d4" + "0" * 56), ("model", "gpt-4"))),
    "l1",
    "w1",
    "gpt-4",
    NOW - 3_210,
    2,
)


def shown(*holdings: Holding) -> Document:
    """Return the document of what is held."""
    return document(Snapshot(NOW, holdings), store="redis", ttl=TTL)


def test_document_has_the_promised_shape() -> None:
    """A status tells each scope with its limit, what is in flight, and its holders, keys by their hash."""
    assert shown(HOLDING) == {
        "in_flight": 1,
        "store": "redis",
        "degraded": False,
        "scopes": [
            {
                "name": "model_per_key",
                "scope": {"key": "a1b2c3d4", "model": "gpt-4"},
                "limit": 2,
                "in_flight": 1,
                "waiting": 0,
                "holders": [{"lease": "l1", "model": "gpt-4", "worker": "w1", "age_seconds": 3.2}],
            }
        ],
    }


def test_nothing_in_flight_shows_no_scopes() -> None:
    """Only scopes with something in flight are shown."""
    assert (shown()["in_flight"], shown()["scopes"]) == (0, [])


def test_outage_shows() -> None:
    """A status of this worker alone says that it is one, and of which store."""
    status = document(Snapshot(NOW, (), is_whole=False), store="memory", ttl=TTL)
    assert (status["store"], status["degraded"]) == ("memory", True)


def test_lease_of_several_limits_is_one_in_flight() -> None:
    """At the top leases are counted, each once, and slots in each scope."""
    other = replace(HOLDING, scope=Scope("all"))
    second = replace(other, lease="l2")
    status = shown(HOLDING, other, second)
    assert status["in_flight"] == 2
    assert {scope["name"]: scope["in_flight"] for scope in status["scopes"]} == {"all": 2, "model_per_key": 1}


def test_scopes_of_a_limit_are_apart() -> None:
    """Each scope is shown by itself, in an order that does not change."""
    holdings = [replace(HOLDING, scope=Scope("team", (("team", team),))) for team in "cab"]
    teams = [scope["scope"]["team"] for scope in shown(*holdings)["scopes"]]
    assert teams == ["a", "b", "c"]


def test_oldest_holder_comes_first() -> None:
    """Holders are shown by age, the oldest first."""
    holdings = [replace(HOLDING, lease=str(age), started_ms=NOW - age) for age in (5, 9_000, 700)]
    (scope,) = shown(*holdings)["scopes"]
    assert [holder["lease"] for holder in scope["holders"]] == ["9000", "700", "5"]
    assert [holder["age_seconds"] for holder in scope["holders"]] == [9.0, 0.7, 0.0]


def test_age_is_never_negative() -> None:
    """A lease that starts by a clock a little ahead is new."""
    (scope,) = shown(replace(HOLDING, started_ms=NOW + 50))["scopes"]
    assert scope["holders"][0]["age_seconds"] == 0


@pytest.mark.parametrize(
    ("met", "limit"),
    [
        ([(1, 5)], 5),
        ([(1, 5), (2, 3), (3, 4)], 3),
        ([(1, 5), (31, 3)], 5),
        ([(29, 3), (1, 5)], 3),
        ([(40, 3), (35, 7)], 7),
    ],
)
def test_limit_is_the_lowest_number_met_lately(met: list[tuple[int, int]], limit: int) -> None:
    """The number shown is the lowest within the last time to live; of older holders, the newest one's."""
    holdings = [
        replace(HOLDING, lease=str(age), started_ms=NOW - age * 1_000, capacity=number) for age, number in met
    ]
    (scope,) = shown(*holdings)["scopes"]
    assert scope["limit"] == limit


def test_hostile_names_make_no_hostile_page() -> None:
    """Whatever clients call themselves, the document is JSON of short printable texts."""
    hostile = "\x1b[2J\ud800<script>\n" + "x" * 10_000
    scope = Scope("end_user", (("end_user", hostile),))
    text = json.dumps(shown(replace(HOLDING, scope=scope, model=hostile)), ensure_ascii=False)
    text.encode()
    assert text.isprintable()
    assert len(text) < 500
