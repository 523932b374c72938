"""What the status page says of a snapshot."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import pytest

from litellm_parallel_limits.history import Refusals
from litellm_parallel_limits.limits import Scope
from litellm_parallel_limits.onlooker import Onlooker
from litellm_parallel_limits.sources import Call, Identity
from litellm_parallel_limits.status import Sort, View, look, scope_id, status
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


def shown(
    *holdings: Holding, view: View | None = None, refused: Mapping[Scope, Refusals] | None = None
) -> dict[str, Any]:
    """Return the document of what is held, and what was refused."""
    snapshot = Snapshot(NOW, holdings)
    return asdict(status(look(snapshot, refused or {}, ttl=TTL), view or View(), store="redis"))


def test_document_has_the_promised_shape() -> None:
    """A status tells each scope with its limit, what is in flight, and its holders, keys by their hash."""
    assert shown(HOLDING) == {
        "in_flight": 1,
        "waiting": 0,
        "refused_lately": 0,
        "store": "redis",
        "degraded": False,
        "total": 1,
        "page": 1,
        "page_size": 100,
        "total_pages": 1,
        "scopes": [
            {
                "id": scope_id(HOLDING.scope),
                "name": "model_per_key",
                "scope": {"key": "a1b2c3d4", "model": "gpt-4"},
                "limit": 2,
                "in_flight": 1,
                "waiting": 0,
                "utilization": 0.5,
                "refused_lately": 0,
                "holders": [{"lease": "l1", "model": "gpt-4", "worker": "w1", "age_seconds": 3.2}],
            }
        ],
    }


def test_nothing_in_flight_shows_no_scopes() -> None:
    """Only scopes with something in flight are shown."""
    assert (shown()["in_flight"], shown()["scopes"]) == (0, [])


def test_outage_shows() -> None:
    """A status of this worker alone says that it is one, and of which store."""
    alone = status(look(Snapshot(NOW, (), is_whole=False), {}, ttl=TTL), View(), store="memory")
    assert (alone.store, alone.degraded) == ("memory", True)


def test_lease_of_several_limits_is_one_in_flight() -> None:
    """At the top leases are counted, each once, and slots in each scope."""
    other = replace(HOLDING, scope=Scope("all"))
    second = replace(other, lease="l2")
    both = shown(HOLDING, other, second)
    assert both["in_flight"] == 2
    assert {scope["name"]: scope["in_flight"] for scope in both["scopes"]} == {"all": 2, "model_per_key": 1}


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
    assert len(text) < 700


def test_who_was_refused_lately_is_shown_with_nothing_in_flight() -> None:
    """A limit that refused within the last minute is there, with the number it refused at."""
    blocked = Scope("team", (("team", "closed"),))
    (scope,) = shown(refused={blocked: Refusals(7, 0)})["scopes"]
    assert (scope["refused_lately"], scope["limit"], scope["in_flight"]) == (7, 0, 0)
    assert scope["utilization"] == 1


def test_number_nobody_knows_is_null() -> None:
    """Where only the limit's name is known, of too many scopes, neither number nor share is made up."""
    (scope,) = shown(refused={Scope("team"): Refusals(7, None)})["scopes"]
    assert (scope["limit"], scope["utilization"]) == (None, None)


@pytest.mark.parametrize(
    ("sort", "first"),
    [("name", "a"), ("utilization", "b"), ("in_flight", "c"), ("refused", "d")],
)
def test_scopes_are_sorted(sort: Sort, first: str) -> None:
    """By name from A on, by numbers from the greatest on."""
    held = {"a": (1, 9), "b": (1, 1), "c": (3, 9), "d": (1, 9)}
    scopes = {name: Scope("team", (("team", name),)) for name in held}
    holdings = [
        replace(HOLDING, scope=scopes[name], lease=f"{name}{number}", capacity=capacity)
        for name, (many, capacity) in held.items()
        for number in range(many)
    ]
    order = shown(*holdings, view=View(sort=sort), refused={scopes["d"]: Refusals(2, 9)})["scopes"]
    assert order[0]["scope"] == {"team": first}


def test_pages_part_the_scopes() -> None:
    """Each scope is on one page; the numbers at the top are of all of them."""
    scopes = [Scope("team", (("team", f"{of:03}"),)) for of in range(7)]
    holdings = [replace(HOLDING, scope=scope, lease=scope.key) for scope in scopes]
    pages = [shown(*holdings, view=View(page=page, page_size=3)) for page in (1, 2, 3, 4)]
    teams = [[scope["scope"]["team"] for scope in page["scopes"]] for page in pages]
    assert teams == [["000", "001", "002"], ["003", "004", "005"], ["006"], []]
    assert {(page["in_flight"], page["total"], page["total_pages"]) for page in pages} == {(7, 7, 3)}


def test_one_limit_can_be_asked_for() -> None:
    """With a limit named its scopes only are shown, and counted."""
    other = replace(HOLDING, scope=Scope("all"), lease="l2")
    assert shown(HOLDING, other, view=View(limit="all"))["in_flight"] == 1


ANN = Onlooker.of(Call({"key": Identity("k" * 64), "user": Identity("ann=;"), "team": Identity("x" * 300)}))
KEY, USER, TEAM = ("key", "k" * 64), ("user", "ann=;"), ("team", "x" * 300)


@pytest.mark.parametrize(
    "identities",
    [(KEY,), (KEY, ("model", "gpt-4")), (USER,), (TEAM,), (TEAM, USER), (USER, ("deployment", "d1"))],
)
def test_own_scopes_are_seen(identities: tuple[tuple[str, str], ...]) -> None:
    """Who is no admin sees what counts by its key, user or team, and by a model beside."""
    assert ANN.may_see(Scope("some", identities))
    assert ANN.may_see(Scope.parse(Scope("some", identities).key))


@pytest.mark.parametrize(
    "identities",
    [
        (),
        (("model", "gpt-4"),),
        (("user", "bob"),),
        (("user", "ann"),),
        (("team", "x" * 299),),
        (TEAM, ("user", "bob")),
        (("end_user", "ann=;"),),
        (USER, ("end_user", "customer")),
        (("tag", "t"),),
        (("organization", "o"),),
    ],
)
def test_nothing_of_others_is_seen(identities: tuple[tuple[str, str], ...]) -> None:
    """Neither scopes of others, nor what everybody shares, nor what a stranger named after them."""
    assert not ANN.may_see(Scope("some", identities))


def test_requests_of_others_in_a_shared_scope_are_not_told() -> None:
    """In a team's scope others are counted: that is seen, and who they are is not."""
    of_team = replace(HOLDING, scope=Scope("team", (TEAM,)))
    of_key = replace(HOLDING, scope=Scope("api_key", (KEY,)))
    stranger = replace(HOLDING, scope=Scope("api_key", (("key", "0" * 64),)), lease="l2")
    seen = shown(of_team, of_key, stranger, view=View(onlooker=ANN))
    assert {scope["name"]: len(scope["holders"]) for scope in seen["scopes"]} == {"team": 0, "api_key": 1}
    assert seen["in_flight"] == 1
