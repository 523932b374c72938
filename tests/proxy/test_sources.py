"""What each value in each place where a number may stand does to the next request, and which place wins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal
from uuid import uuid4

import pytest

from litellm_parallel_limits.built_in import BUILT_IN
from tests.conftest import StartProxy
from tests.rig import rows
from tests.rig.burst import Ask
from tests.rig.config import Config, deployment
from tests.rig.identities import key
from tests.rig.litellm_version import (
    MEMBERS_DEFAULTS,
    ORGANIZATIONS_BUDGETS,
    OWN_METADATA,
    PROJECTS,
    USERS_NUMBERS,
    Ability,
    marks,
)
from tests.rig.polling import until
from tests.rig.provider import Provider
from tests.rig.proxy import Proxy

pytestmark = pytest.mark.proxy

MODEL = "openai/ok"
NUMBER = "max_parallel_requests"
BY_MODEL = "model_max_parallel_requests"
HUGE = 10**30

VALUES: dict[str, tuple[object, int | None]] = {
    "null": (None, None),
    "0": (0, 0),
    "1": (1, 1),
    "text of a number": ("5", 5),
    "huge": (HUGE, 2**53 - 1),
    "-1": (-1, None),
    "true": (True, None),
    "1.5": (1.5, None),
    "text": ("x", None),
}
"""Each value with the number it is by our rule, None if it sets no limit."""

Table = dict[str, Any]
Keeps = Literal["anything", "numbers", "checked numbers", "settings"]
"""What LiteLLM keeps in a place: whatever it is given; rows, of which it makes numbers when it reads them;
a field whose other values are its own to judge; the operator's settings, where a mistake stops the start."""

KEPT: dict[Keeps, set[str]] = {
    "anything": set(VALUES),
    "numbers": set(VALUES),
    "checked numbers": {"null", "0", "1", "text of a number", "huge"},
    "settings": {"null", "0", "1", "text of a number", "huge"},
}
"""The values that there can be in such a place."""


@dataclass(frozen=True)
class Place:
    """A source of a limit's number: the record of a key of which it says `value`, of parties named alike.

    `needs` is what LiteLLM must be able to do for it.
    """

    limit: str
    source: str
    says: Callable[[str, object], Table]
    keeps: Keeps = "anything"
    needs: Ability | None = None

    def __str__(self) -> str:
        return f"{self.limit}: {self.source}"

    def number(self, value: str) -> int | None:
        """Return the number that a value is here."""
        if self.needs is not None and not self.needs:
            return None
        if value == "true" and self.keeps == "numbers":
            return 1  # LiteLLM reads it so
        return VALUES[value][1]


def meta(of: str, entry: str, *, model: bool = False, **fields: str) -> Callable[[str, object], Table]:
    """Return what puts a value into the metadata `of`; each of `fields` is the party's name."""
    return lambda x, value: {
        **dict.fromkeys(fields.values(), x),
        of: {entry: {MODEL: value} if model else value},
    }


PLACES = (
    Place("api_key", f"key metadata {NUMBER}", meta("metadata", NUMBER)),
    Place("api_key", f"auth {NUMBER}", lambda _, v: {NUMBER: v}, "checked numbers"),
    Place("model_per_key", f"key metadata {BY_MODEL}", meta("metadata", BY_MODEL, model=True)),
    Place(
        "model_per_key",
        f"key model_max_budget {NUMBER}",
        lambda _, v: {"model_max_budget": {MODEL: {NUMBER: v}}},
    ),
    Place(
        "model_per_key",
        f"team metadata {BY_MODEL}",
        meta("team_metadata", BY_MODEL, model=True, of_a="team_id"),
    ),
    Place(
        "model_per_team",
        f"team metadata team_{BY_MODEL}",
        meta("team_metadata", f"team_{BY_MODEL}", model=True, of_a="team_id"),
    ),
    Place("user", f"auth user_{NUMBER}", lambda x, v: {"user_id": x, f"user_{NUMBER}": v}),
    Place("user", f"key metadata user_{NUMBER}", meta("metadata", f"user_{NUMBER}", of_a="user_id")),
    Place(
        "user",
        f"user {NUMBER}",
        lambda x, v: {"user_id": x, "rows": rows.user(x, v)},
        "numbers",
        needs=USERS_NUMBERS,
    ),
    Place(
        "model_per_user",
        f"user metadata {BY_MODEL}",
        lambda x, v: {"user_id": x, "rows": rows.user(x, metadata={BY_MODEL: {MODEL: v}})},
    ),
    Place("team", f"auth team_{NUMBER}", lambda x, v: {"team_id": x, f"team_{NUMBER}": v}),
    Place("team", f"team metadata team_{NUMBER}", meta("team_metadata", f"team_{NUMBER}", of_a="team_id")),
    Place("team", f"team metadata {NUMBER}", meta("team_metadata", NUMBER, of_a="team_id")),
    Place("team", f"team {NUMBER}", lambda x, v: {"team_id": x, "rows": rows.team(x, v)}, "numbers"),
    Place(
        "team_member",
        f"team metadata team_member_{NUMBER}",
        meta("team_metadata", f"team_member_{NUMBER}", of_a="team_id", and_a="user_id"),
    ),
    Place(
        "team_member",
        f"membership budget {NUMBER}",
        lambda x, v: {"team_id": x, "user_id": x, "rows": rows.member(x, x, v)},
        "numbers",
    ),
    Place(
        "team_member",
        f"member default budget {NUMBER}",
        lambda x, v: {
            "team_id": x,
            "user_id": x,
            "team_metadata": {"team_member_budget_id": x},
            "rows": rows.member_default(x, v),
        },
        "numbers",
        needs=MEMBERS_DEFAULTS,
    ),
    Place(
        "organization",
        f"organization metadata {NUMBER}",
        meta("organization_metadata", NUMBER, of_a="org_id"),
    ),
    Place(
        "organization",
        f"organization budget {NUMBER}",
        lambda x, v: {"org_id": x, "rows": rows.organization(x, v)},
        "numbers",
        needs=ORGANIZATIONS_BUDGETS,
    ),
    Place(
        "model_per_organization",
        f"organization metadata {BY_MODEL}",
        meta("organization_metadata", BY_MODEL, model=True, of_a="org_id"),
    ),
    Place(
        "project",
        f"project metadata {NUMBER}",
        meta("project_metadata", NUMBER, of_a="project_id"),
        needs=PROJECTS,
    ),
    Place(
        "model_per_project",
        f"project metadata {BY_MODEL}",
        meta("project_metadata", BY_MODEL, model=True, of_a="project_id"),
        needs=PROJECTS,
    ),
    Place("end_user", f"customer budget {NUMBER}", lambda x, v: {"rows": rows.customer(x, v)}, "numbers"),
    Place("tag", f"tag budgets {NUMBER}", lambda x, v: {"rows": rows.tag(x, v)}, "numbers"),
    Place("model", f"model_info {BY_MODEL}", lambda _, __: {}, "settings"),
    Place("deployment", f"deployments {NUMBER}", lambda _, __: {}, "settings"),
)
"""Every source there is, those of a limit in their order."""

IN_RECORDS = [place for place in PLACES if place.keeps in {"anything", "numbers"}]


def _one_limit(place: Place, value: str) -> Ability | None:
    """Return what it takes that a team's number of 0 is not its key's, too, whose limit is named first."""
    return OWN_METADATA if (place.source, value) == (f"team metadata {NUMBER}", "0") else None


TABLE = [
    pytest.param(place, value, marks=marks(place.needs, _one_limit(place, value)), id=f"{place}-{value}")
    for place in PLACES
    for value in VALUES
    if value in KEPT[place.keeps]
]
ORDERED = [place for place in PLACES if sum(place.limit == other.limit for other in PLACES) > 1]


def named(limit: str, value: object) -> str:
    """Return the model whose deployment says this of the limit."""
    return f"{limit}-{value}"


def models(provider: str) -> list[Config]:
    """Return a model for each value in each of the operator's places."""
    entries = []
    for limit, entry in (("model", BY_MODEL), ("deployment", NUMBER)):
        for value in sorted(KEPT["settings"]):
            written, _ = VALUES[value]
            one = deployment(named(limit, written), MODEL, provider)
            entries.append({**one, "model_info": {"parallel_limits": {entry: written}}})
    return entries


@pytest.fixture(scope="module")
def sources_proxy(start_proxy: StartProxy, provider: Provider) -> Proxy:
    """A proxy that enforces the keys' own field, too, and has the operator's numbers in its `model_info`."""
    return start_proxy(
        models=models(provider.url),
        litellm_settings={"parallel_limits": {"take_over_key_limit": True}},
    )


def merged(*tables: Table) -> Table:
    """Return one table with the entries of all; tables within them are merged likewise."""
    whole: Table = {}
    for table in tables:
        for name, value in table.items():
            known = whole.get(name)
            are_tables = isinstance(known, dict) and isinstance(value, dict)
            whole[name] = merged(known or {}, value) if are_tables else value
    return whole


def asking(*said: tuple[Place, object]) -> Ask:
    """Return a request that finds these values in these places, for a customer, and with a tag, alike."""
    x = uuid4().hex
    record = merged(*(place.says(x, value) for place, value in said))
    [(place, value), *_] = said
    model = named(place.limit, value) if place.keeps == "settings" else MODEL
    return Ask(key(**record), model, {"user": x, "metadata": {"tags": [x]}})


async def number_told(proxy: Proxy, limit: str, ask: Ask) -> int | None:
    """Return the number of the limit that a request is told of, None if of none."""
    answer = await ask.send(proxy)
    if answer.status_code == 429:
        assert answer.headers["x-parallel-limit-name"] == limit
        assert "is full: 0 of 0 in flight" in answer.text
        return 0
    assert answer.status_code == 200, answer.text
    told = answer.headers.get(f"x-ratelimit-{limit}-limit-max_parallel_requests")
    return None if told is None else int(told)


def test_every_source_has_its_place() -> None:
    """No source of a number goes untried, and none is out of order."""
    for built_in in BUILT_IN:
        places = [place.source for place in PLACES if place.limit == built_in.name]
        assert places == [str(source) for source in built_in.sources]


@pytest.mark.parametrize(("place", "value"), TABLE)
async def test_a_value_sets_a_number_or_none(sources_proxy: Proxy, place: Place, value: str) -> None:
    """Numbers hold, also as text; null and what is no number set no limit; nothing is a 500."""
    ask = asking((place, VALUES[value][0]))
    assert await number_told(sources_proxy, place.limit, ask) == place.number(value)


def _own_metadata(place: Place) -> Ability | None:
    """Return what it takes that a team's entry does not stand in the place of its key's."""
    is_beside_a_teams = place.limit == "model_per_key" and not place.source.startswith("team")
    return OWN_METADATA if is_beside_a_teams else None


@pytest.mark.parametrize("before", ["null", "-1"])
@pytest.mark.parametrize(
    "place",
    [pytest.param(place, marks=marks(place.needs, _own_metadata(place)), id=str(place)) for place in ORDERED],
)
async def test_the_first_source_with_a_number_wins(sources_proxy: Proxy, place: Place, before: str) -> None:
    """Sources that come before, and say nothing or nonsense, are passed over; those behind are not asked."""
    sources = [other for other in PLACES if other.limit == place.limit]
    here = sources.index(place)
    values = [*[VALUES[before][0]] * here, 3, *[9] * (len(sources) - here - 1)]
    ask = asking(*zip(sources, values, strict=True))
    assert await number_told(sources_proxy, place.limit, ask) == 3


@pytest.mark.parametrize(
    "place", [pytest.param(place, marks=marks(place.needs), id=str(place)) for place in IN_RECORDS]
)
async def test_a_bad_value_is_told_once_a_source(sources_proxy: Proxy, place: Place) -> None:
    """The log names the limit and the source in one line, however many requests met it."""
    for _ in range(3):
        await asking((place, -1)).send(sources_proxy)

    def lines() -> int:
        return sources_proxy.log().count(f"({place})")

    await until(lambda: lines() > 0, 5, lines)
    assert lines() == 1
