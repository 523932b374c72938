"""LiteLLM's own look-ups, over its own cache: what they find, and what they are spared."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from litellm_parallel_limits.built_in import wanted_records
from litellm_parallel_limits.events import Event, LookUpFailed
from litellm_parallel_limits.records import NOTHING_SECONDS, Found, Records
from litellm_parallel_limits.sources import Call, Dimension, Identity, Record
from tests.clock import Clock
from tests.json_values import json_values
from tests.litellm_objects import auth, imported, warnings_of_its_own
from tests.rig.litellm_version import (
    MEMBERS_DEFAULTS,
    ORGANIZATIONS_BUDGETS,
    USERS_NUMBERS,
    Ability,
    marks,
    needs,
)

pytestmark = pytest.mark.versions

AUTH_CHECKS = "litellm.proxy.auth.auth_checks"
TYPES = "litellm.proxy._types"
TAGS = (Identity("t1"), Identity("t2"))


@dataclass(frozen=True)
class Kind:
    """A record of LiteLLM's: whose it is, by which look-up it is read, and what LiteLLM keeps where."""

    record: Record
    look_up: str
    dimension: Dimension
    fields: Mapping[str, Any]
    of: str
    key: str
    row: Callable[[object], Mapping[str, Any]]
    needs: Ability | None = None

    def __str__(self) -> str:
        return self.record

    @property
    def exists(self) -> bool:
        """Whether this version of LiteLLM finds it, and its number, in its cache."""
        return self.needs is None or bool(self.needs)


def budget(number: object) -> dict[str, Any]:
    """Return a budget as LiteLLM keeps it."""
    return {"budget_id": "b1", "max_parallel_requests": number}


def with_budget(**fields: Any) -> Callable[[object], Mapping[str, Any]]:
    """Return a row that has a budget."""
    return lambda number: {**fields, "budget_id": "b1", "litellm_budget_table": budget(number)}


BY = {"created_by": "admin", "updated_by": "admin"}
KINDS = (
    Kind(
        "user",
        "get_user_object",
        "user",
        {"user_id": "u1"},
        "LiteLLM_UserTable",
        "u1",
        lambda number: {
            "user_id": "u1",
            "max_budget": None,
            "user_email": None,
            "max_parallel_requests": number,
        },
        USERS_NUMBERS,
    ),
    Kind(
        "team",
        "get_team_object",
        "team",
        {"team_id": "t1"},
        "LiteLLM_TeamTableCachedObj",
        "team_id:t1",
        lambda number: {"team_id": "t1", "max_parallel_requests": number},
    ),
    Kind(
        "membership budget",
        "get_team_membership",
        "team",
        {"team_id": "t1", "user_id": "u1"},
        "LiteLLM_TeamMembership",
        "team_membership:u1:t1",
        with_budget(team_id="t1", user_id="u1"),
    ),
    Kind(
        "member default budget",
        "get_team_member_default_budget",
        "team",
        {"team_id": "t1", "user_id": "u1", "team_metadata": {"team_member_budget_id": "b1"}},
        "LiteLLM_BudgetTable",
        "team_member_default_budget:b1",
        budget,
        MEMBERS_DEFAULTS,
    ),
    Kind(
        "organization budget",
        "get_org_object",
        "organization",
        {"org_id": "o1"},
        "LiteLLM_OrganizationTable",
        "org_id:o1:with_budget",
        with_budget(organization_id="o1", models=[], **BY),
        ORGANIZATIONS_BUDGETS,
    ),
    Kind(
        "customer budget",
        "get_end_user_object",
        "end_user",
        {"end_user_id": "e1"},
        "LiteLLM_EndUserTable",
        "end_user_id:e1",
        with_budget(user_id="e1", blocked=False),
    ),
    Kind(
        "tag budgets",
        "get_tag_objects_batch",
        "tag",
        {},
        "LiteLLM_TagTable",
        "tag:t1",
        with_budget(tag_name="t1", models=[]),
    ),
)


@dataclass
class Database:
    """A database that says what it is told to, and notes what it was asked for."""

    says: Callable[[], Any]
    asked: list[str] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Table(self, name)


@dataclass
class _Table:
    database: Database
    name: str

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Table(self.database, f"{self.name}.{name}")

    async def __call__(self, *_: object, **__: object) -> Any:
        self.database.asked.append(self.name)
        return self.database.says()


def out() -> Database:
    """Return a database that is out."""

    def raises() -> Any:
        raise ConnectionError("out")

    return Database(raises)


class LiteLLM:
    """LiteLLM as far as look-ups need it, and our records on top of it."""

    def __init__(self, database: Database | None = None) -> None:
        self.prisma_client = database
        self.proxy_logging_obj = None
        self.user_api_key_cache = _cache()
        self.clock, self.events = Clock(), list[Event]()
        self.records = Records(observer=self.events.append, deadline=30, clock=self.clock)
        # LiteLLM remembers by itself for some seconds which parties there are not.
        imported(AUTH_CHECKS).last_db_access_time.clear()

    async def keep(self, kind: Kind, number: object, key: str = "") -> None:
        """Put the record where LiteLLM's cache keeps it."""
        of = getattr(imported(TYPES), kind.of)
        row = of(**kind.row(number))
        await _set(self.user_api_key_cache, key or kind.key, row)
        if kind.record == "member default budget":
            await self._keep_member()

    async def _keep_member(self) -> None:
        """Keep a member who has no budget."""
        row = imported(TYPES).LiteLLM_TeamMembership(**with_budget(team_id="t1", user_id="u1")(None))
        await _set(self.user_api_key_cache, "team_membership:u1:t1", row)

    async def forget(self) -> None:
        """Let LiteLLM's cache run out."""
        self.user_api_key_cache = _cache()
        imported(AUTH_CHECKS).last_db_access_time.clear()

    async def find(self, call: Call, wanted: frozenset[Record], **fields: Any) -> Found:
        """Look up what is wanted of a call."""
        look_ups = imported("litellm_parallel_limits.look_ups").look_ups
        with warnings_of_its_own():
            return await self.records.of(look_ups(auth(**fields), call, wanted, self))

    async def number(self, kind: Kind) -> object:
        """Return the number in a record, None if there is none."""
        # Who has a default has no budget of its own, as far as is known.
        wanted: set[Record] = {kind.record}
        if kind.record == "member default budget":
            wanted.add("membership budget")
        found = await self.find(Call(tags=TAGS), frozenset(wanted), **kind.fields)
        record: Any = found.get(kind.record, {})
        if kind.record == "tag budgets":
            record = record.get("t1", {})
        return record.get("max_parallel_requests")

    def kept(self) -> set[str]:
        """Return the names of everything that LiteLLM's cache keeps."""
        cache = self.user_api_key_cache
        parts = [cache, getattr(cache, "key_object_cache", cache)]
        return {name for part in parts for name in part.in_memory_cache.cache_dict}


def _cache() -> Any:
    try:
        return imported("litellm.proxy.common_utils.user_api_key_cache").UserApiKeyCache()
    except ImportError:
        return imported("litellm.caching.caching").DualCache()


async def _set(cache: Any, key: str, row: Any) -> None:
    if type(cache).__name__ == "DualCache":
        await cache.async_set_cache(key=key, value=row.model_dump())
    else:
        await cache.async_set_cache(key=key, value=row, model_type=type(row))


class _Prisma(ModuleType):
    """Stands for the package of LiteLLM's database, of which it imports errors where something is missing."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (Exception,), {})


@pytest.fixture(autouse=True)
def _package_of_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    if find_spec("prisma") is None:
        for name in ("prisma", "prisma.errors"):
            monkeypatch.setitem(sys.modules, name, _Prisma(name))


@pytest.fixture(params=[pytest.param(kind, marks=marks(kind.needs), id=str(kind)) for kind in KINDS])
def kind(request: pytest.FixtureRequest) -> Kind:
    """Each record that LiteLLM has to be asked for, where this version of it knows such a thing."""
    kind: Kind = request.param
    return kind


@pytest.mark.parametrize("value", [5, 0, None])
async def test_number_in_litellms_cache_is_found(kind: Kind, value: int | None) -> None:
    """What LiteLLM's cache keeps of a party is found there, without a database and with one."""
    for database in (None, Database(lambda: None)):
        litellm = LiteLLM(database)
        await litellm.keep(kind, value)
        assert await litellm.number(kind) == value
        assert litellm.events == []


async def test_cached_number_costs_no_query(kind: Kind) -> None:
    """What is in LiteLLM's cache is not asked of its database, however many requests there are."""
    litellm = LiteLLM(out())
    await litellm.keep(kind, 5)
    if kind.record == "tag budgets":
        await litellm.keep(kind, 7, "tag:t2")
    for _ in range(3):
        assert await litellm.number(kind) == 5
    assert litellm.prisma_client is not None
    assert litellm.prisma_client.asked == []


async def test_number_changed_in_the_cache_holds_at_once(kind: Kind) -> None:
    """As soon as LiteLLM's cache shows another number, it is found."""
    litellm = LiteLLM()
    for value in (5, 6):
        await litellm.keep(kind, value)
        assert await litellm.number(kind) == value


async def test_missing_record_is_nothing_without_a_database(kind: Kind) -> None:
    """Without a database there is no more than what is cached: nothing is found, and nobody is alarmed."""
    litellm = LiteLLM()
    assert await litellm.number(kind) is None
    assert litellm.events == []


async def test_without_a_database_litellms_cache_stays_as_it_is(kind: Kind) -> None:
    """What is not there because there is no database is not put down in LiteLLM's cache as missing.

    That cache may be shared with proxies that have a database.
    """
    litellm = LiteLLM()
    await litellm.number(kind)
    assert litellm.kept() == set()


async def test_missing_record_is_asked_for_once_in_a_while(kind: Kind) -> None:
    """A record that the database does not have is not asked for at every request."""
    litellm = LiteLLM(Database(lambda: None if kind.record != "tag budgets" else []))
    assert await litellm.number(kind) is None
    assert litellm.prisma_client is not None
    asked = list(litellm.prisma_client.asked)
    assert len(asked) <= 2
    for _ in range(3):
        assert await litellm.number(kind) is None
    assert litellm.prisma_client.asked == asked
    assert litellm.events == []


async def test_nobody_is_ever_created() -> None:
    """LiteLLM is never asked to create a user, a team or anything else that it does not find."""
    litellm = LiteLLM(Database(lambda: None))
    wanted = frozenset(kind.record for kind in KINDS)
    parties = {name: value for kind in KINDS for name, value in kind.fields.items()}
    await litellm.find(Call(tags=TAGS), wanted, **parties)
    assert litellm.prisma_client is not None
    assert litellm.prisma_client.asked
    assert all("find" in query for query in litellm.prisma_client.asked)


async def test_database_that_is_out_leaves_the_last_known_number(kind: Kind) -> None:
    """While the database is out, what was last known of a party holds, and requests go on."""
    litellm = LiteLLM(out())
    await litellm.keep(kind, 5)
    assert await litellm.number(kind) == 5
    await litellm.forget()
    for _ in range(3):
        assert await litellm.number(kind) == 5
        litellm.clock.advance(NOTHING_SECONDS + 0.1)
    await litellm.keep(kind, 6)
    assert await litellm.number(kind) == 6


@needs(ORGANIZATIONS_BUDGETS)
@pytest.mark.parametrize("name", ["TableNotFoundError", "BinaryNotFoundError", "ModuleNotFoundError"])
async def test_broken_database_is_no_missing_record(name: str) -> None:
    """What the database's own client does not find is no word of LiteLLM's that there is no record."""
    (kind,) = (kind for kind in KINDS if kind.record == "organization budget")

    def raises() -> Any:
        raise type(name, (Exception,), {})

    litellm = LiteLLM(Database(raises))
    await litellm.keep(kind, 5)
    assert await litellm.number(kind) == 5
    await litellm.forget()
    assert await litellm.number(kind) == 5
    assert len(litellm.events) == 1


async def test_database_that_is_out_sets_no_limit_on_strangers(kind: Kind) -> None:
    """A party of which nothing was ever known has no limit while the database is out."""
    litellm = LiteLLM(out())
    assert await litellm.number(kind) is None


@pytest.mark.parametrize(
    "name", [pytest.param("get_org_object", marks=needs(ORGANIZATIONS_BUDGETS)), "get_team_membership"]
)
async def test_failure_is_told_once(name: str) -> None:
    """A look-up that fails is told of, once and not at every request."""
    (kind,) = (kind for kind in KINDS if kind.look_up == name)
    litellm = LiteLLM(out())
    for _ in range(3):
        await litellm.number(kind)
    (event,) = litellm.events
    assert isinstance(event, LookUpFailed)


async def test_look_up_that_this_version_lacks_finds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look-up that LiteLLM does not have finds nothing, and is no failure; the others are made."""
    missing = ("get_team_member_default_budget", "get_tag_objects_batch")
    for name in missing:
        monkeypatch.delattr(imported(AUTH_CHECKS), name, raising=False)
    litellm = LiteLLM()
    for kind in KINDS:
        if kind.look_up in missing or not kind.exists:
            assert await litellm.number(kind) is None
        else:
            await litellm.keep(kind, 5)
            assert await litellm.number(kind) == 5
    assert litellm.events == []


async def test_users_metadata_comes_with_the_user() -> None:
    """A user's number and the table of models in its metadata are read together."""
    litellm = LiteLLM()
    table = {"model_max_parallel_requests": {"gpt-4": 2}}
    of = imported(TYPES).LiteLLM_UserTable
    row = of(user_id="u1", max_budget=None, user_email=None, max_parallel_requests=3, metadata=table)
    await _set(litellm.user_api_key_cache, "u1", row)
    wanted: Record
    for wanted in ("user", "user metadata"):
        found = await litellm.find(Call(), frozenset({wanted}), user_id="u1")
        number = 3 if USERS_NUMBERS else None
        assert found == {"user": {"max_parallel_requests": number}, "user metadata": table}


async def test_every_tag_of_a_request_is_looked_up() -> None:
    """Each tag has its own number, also where a request has several, and in whatever order."""
    tag = KINDS[-1]
    litellm = LiteLLM()
    await litellm.keep(tag, 5)
    await litellm.keep(tag, 7, "tag:t2")
    for tags in (TAGS, TAGS[::-1], (*TAGS, Identity("t3"))):
        found = await litellm.find(Call(tags=tags), frozenset({"tag budgets"}))
        assert found == {
            "tag budgets": {"t1": {"max_parallel_requests": 5}, "t2": {"max_parallel_requests": 7}}
        }


async def test_tags_are_asked_for_together() -> None:
    """However many tags a request has, LiteLLM is asked for those that it does not know at once."""
    litellm = LiteLLM(Database(list))
    tags = tuple(Identity(f"t{number}") for number in range(20))
    await litellm.find(Call(tags=tags), frozenset({"tag budgets"}))
    assert litellm.prisma_client is not None
    assert len(litellm.prisma_client.asked) <= 2


async def test_tag_is_known_beside_whatever_other_tags() -> None:
    """What was last known of a tag holds in an outage, whatever other tags a request has."""
    tag = KINDS[-1]
    litellm = LiteLLM(out())
    await litellm.keep(tag, 5)
    for place in range(3):
        tags = (Identity("t1"), Identity(f"other-{place}"))
        found = await litellm.find(Call(tags=tags), frozenset({"tag budgets"}))
        assert found == {"tag budgets": {"t1": {"max_parallel_requests": 5}}}
        await litellm.forget()


async def test_only_what_is_wanted_is_asked_for() -> None:
    """A request whose number stands in an earlier source asks for no later one."""
    litellm = LiteLLM(Database(lambda: None))
    assert await litellm.find(Call(tags=TAGS), frozenset(), user_id="u1", team_id="t1") == {}
    assert litellm.prisma_client is not None
    assert litellm.prisma_client.asked == []


NUMBERED: Mapping[Record, Mapping[str, object]] = {
    "auth": {"user_max_parallel_requests": 1, "team_max_parallel_requests": 1},
    "team metadata": {"team_member_max_parallel_requests": 1},
    "organization metadata": {"max_parallel_requests": 1},
}
EVERYBODY: Mapping[Dimension, Identity] = {
    dimension: Identity(dimension) for dimension in ("key", "user", "team", "organization", "end_user")
}


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (Call(), set()),
        (Call({"key": Identity("k")}, (Identity("gpt-4"),)), set()),
        (Call({"user": Identity("u")}), {"user"}),
        (Call({"user": Identity("u")}, (Identity("gpt-4"),)), {"user", "user metadata"}),
        (Call({"team": Identity("t")}), {"team"}),
        (Call({"end_user": Identity("e")}, tags=TAGS), {"customer budget", "tag budgets"}),
        (Call(EVERYBODY, (), NUMBERED), {"customer budget"}),
        (Call(EVERYBODY, (Identity("gpt-4"),), NUMBERED), {"customer budget", "user metadata"}),
        (
            Call(EVERYBODY),
            {
                *("user", "team", "membership budget", "member default budget"),
                *("organization budget", "customer budget"),
            },
        ),
    ],
)
def test_needless_records_are_not_wanted(call: Call, expected: set[Record]) -> None:
    """A record is looked up for parties that the call has, where no earlier source gives that very number."""
    assert wanted_records(call) == expected


async def test_requests_at_the_same_time_ask_once() -> None:
    """Requests that need one record at the same time cost LiteLLM's database one query."""
    litellm = LiteLLM(Database(lambda: None))
    (user,) = (kind for kind in KINDS if kind.record == "user")
    assert await asyncio.gather(*(litellm.number(user) for _ in range(10))) == [None] * 10
    assert litellm.prisma_client is not None
    assert len(litellm.prisma_client.asked) == 1


async def test_default_budget_of_customers_is_the_keys() -> None:
    """The default that a key gives its customers is handed to LiteLLM, where that knows of it."""
    (customer,) = (kind for kind in KINDS if kind.record == "customer budget")
    litellm = LiteLLM()
    await litellm.keep(customer, 5)
    metadata = {"end_user_budget_id": "b9"}
    found = await litellm.find(Call(), frozenset({"customer budget"}), end_user_id="e1", metadata=metadata)
    assert found == {"customer budget": {"max_parallel_requests": 5}}


@given(json_values, json_values, st.sampled_from(["", "u1", "x" * 100_000, "\ud800", "a\0b"]))
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_metadata_is_survived(customer_budget: object, member_budget: object, name: str) -> None:
    """Whatever stands in the metadata of a key or a team, and whatever strangers are called: no failure."""

    async def look() -> None:
        litellm = LiteLLM()
        party = SimpleNamespace(
            user_id=name,
            team_id=name,
            org_id=name,
            end_user_id=name,
            metadata={"end_user_budget_id": customer_budget},
            team_metadata={"team_member_budget_id": member_budget},
        )
        wanted = frozenset(kind.record for kind in KINDS)
        look_ups = imported("litellm_parallel_limits.look_ups").look_ups
        found = look_ups(party, Call(tags=(Identity(name), Identity("t2"))), wanted, litellm)
        with warnings_of_its_own():
            await litellm.records.of(found)

    asyncio.run(look())


def test_what_is_remembered_is_short() -> None:
    """Names of strangers, who may be called anything, are remembered as short texts, each its own."""
    look_ups = imported("litellm_parallel_limits.look_ups").look_ups
    names = ["x" * 100_000, "x" * 99_999, "\ud800" * 200, "\ud801" * 200]
    wanted: frozenset[Record] = frozenset({"customer budget", "tag budgets"})
    parties = [
        look_ups(SimpleNamespace(end_user_id=name), Call(tags=(Identity(name),)), wanted, LiteLLM())
        for name in names
    ]
    remembered = [whose for found in parties for whose in found]
    assert len(set(remembered)) == 2 * len(names)
    assert all(len(repr(whose)) < 500 for whose in remembered)


async def test_missing_package_of_the_database_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where LiteLLM has no database it may lack the package, too, over which its look-ups stumble."""
    for name in ("prisma", "prisma.errors"):
        monkeypatch.setitem(sys.modules, name, None)
    litellm = LiteLLM()
    for kind in KINDS:
        assert await litellm.number(kind) is None
    assert litellm.events == []
