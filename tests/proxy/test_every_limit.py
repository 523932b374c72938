"""Each limit of LiteLLM's names, and each kind of the operator's, holds at its number for those it counts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx
import pytest

from litellm_parallel_limits.built_in import BUILT_IN
from tests.conftest import StartProxy
from tests.rig import rows
from tests.rig.burst import Ask, burst
from tests.rig.config import deployment
from tests.rig.identities import caller, key
from tests.rig.litellm_version import (
    CUSTOMERS_HEADER,
    FALLBACKS,
    MEMBERS_DEFAULTS,
    ORGANIZATIONS_BUDGETS,
    PROJECTS,
    USERS_NUMBERS,
    marks,
    needs,
)
from tests.rig.polling import until
from tests.rig.provider import Provider
from tests.rig.proxy import Proxy
from tests.rig.redis_server import RedisServer

pytestmark = [pytest.mark.proxy, pytest.mark.versions]

N = 2
"""The number of every limit here."""

MODELS = {"model_max_parallel_requests": {"gpt-4": N}}
NUMBER = {"max_parallel_requests": N}


def operators(name: str, **about: Any) -> dict[str, Any]:
    """Return an entry of `limits`."""
    return {"name": name, "max_parallel_requests": N, **about}


LIMITS = [
    operators("pool", models=["llama-*"]),
    operators("per-organization", where={"organization": "op-*"}, by=["organization"]),
    operators("per-project", where={"project": "op-*"}, by=["project"]),
    operators("per-customer", where={"end_user": "op-*"}, by=["end_user"]),
    operators("per-tag", where={"tag": "op-*"}, by=["tag"]),
    operators("per-key", where={"team": "op-*"}, by=["key", "model"]),
    operators("per-box", where={"user": "op-*"}, by=["deployment"]),
    operators("everything") | {"max_parallel_requests": 7},
]


@pytest.fixture(scope="module")
def limited_proxy(start_proxy: StartProxy, provider: Provider, redis_server: RedisServer) -> Proxy:
    """A proxy of two workers on Redis with all these limits."""

    def box(name: str, **says: int) -> dict[str, Any]:
        entry = deployment(name, f"openai/gated:{name}", provider.url)
        return {**entry, "model_info": {"parallel_limits": says}} if says else entry

    wild = deployment("wild/*", "openai/*", provider.url)
    return start_proxy(
        workers=2,
        redis_port=redis_server.port,
        models=[
            *(box(name) for name in ("gpt-4", "gpt-3.5-turbo", "llama-70b", "llama-8b")),
            box("two-boxes", model_max_parallel_requests=1),
            box("two-boxes", model_max_parallel_requests=N),
            box("one-box", max_parallel_requests=N),
            box("falling", model_max_parallel_requests=1),
            {**wild, "model_info": {"parallel_limits": {"model_max_parallel_requests": N}}},
        ],
        litellm_settings={"parallel_limits": {"limits": LIMITS}},
        router_settings={"fallbacks": [{"falling": ["gpt-3.5-turbo"]}]},
    )


Asks = Callable[[str], Ask]


@dataclass(frozen=True)
class Headed(Ask):
    """A request that says something in its headers."""

    headers: dict[str, str] = field(default_factory=dict)

    async def send(self, proxy: Proxy) -> httpx.Response:
        """Return the proxy's answer."""
        body = {"model": self.model, "messages": [{"role": "user", "content": "hi"}], **self.body}
        async with proxy.http(self.key) as client:
            return await client.post("/v1/chat/completions", json=body, headers=self.headers)


@dataclass(frozen=True)
class Case:
    """A limit: a request that it counts, under a fresh name, and one that it does not."""

    limit: str
    ask: Asks
    neighbour: Asks
    source: str = ""

    def __str__(self) -> str:
        return " ".join(filter(None, (self.limit, self.source)))


def of(model: str = "gpt-4", body: dict[str, Any] | None = None, **record: Any) -> Ask:
    """Return a request of a key with this record; every call makes a key of its own."""
    return Ask(key(**record), model, body or {})


def headed(headers: dict[str, str], **record: Any) -> Ask:
    """Return a request with these headers."""
    return Headed(key(**record), "gpt-4", headers=headers)


KEYS: dict[str, str] = {}


def one_key(name: str, **record: Any) -> str:
    """Return the same key for the same name."""
    return KEYS.setdefault(name, key(**record))


CASES = (
    Case("api_key", lambda x: Ask(one_key(x, metadata=NUMBER), "gpt-4"), lambda _: of(metadata=NUMBER)),
    Case(
        "model_per_key",
        lambda x: Ask(one_key(x, metadata=MODELS), "gpt-4"),
        lambda x: Ask(one_key(x), "gpt-3.5-turbo"),
        "metadata",
    ),
    Case(
        "model_per_key",
        lambda x: Ask(one_key(x, model_max_budget={"gpt-4": NUMBER}), "gpt-4"),
        lambda _: of(model_max_budget={"gpt-4": NUMBER}),
        "budget",
    ),
    Case(
        "model_per_key",
        lambda x: Ask(one_key(x, team_id=x, team_metadata=MODELS), "gpt-4"),
        lambda x: of(team_id=x, team_metadata=MODELS),
        "team metadata",
    ),
    Case(
        "model_per_team",
        lambda x: of(team_id=x, team_metadata={"team_model_max_parallel_requests": {"gpt-4": N}}),
        lambda x: of("gpt-3.5-turbo", team_id=x),
    ),
    *(
        Case("user", ask, lambda _: of(user_id="somebody", user_max_parallel_requests=N), source)
        for source, ask in {
            "auth": lambda x: of(user_id=x, user_max_parallel_requests=N),
            "key metadata": lambda x: of(user_id=x, metadata={"user_max_parallel_requests": N}),
            "record": lambda x: of(user_id=x, rows=rows.user(x, N)),
        }.items()
    ),
    Case(
        "model_per_user",
        lambda x: of(user_id=x, rows=rows.user(x, metadata=MODELS)),
        lambda x: of("gpt-3.5-turbo", user_id=x, rows=rows.user(x, metadata=MODELS)),
    ),
    *(
        Case("team", ask, lambda _: of(team_id="others", team_max_parallel_requests=N), source)
        for source, ask in {
            "auth": lambda x: of(team_id=x, team_max_parallel_requests=N),
            "metadata, team_": lambda x: of(team_id=x, team_metadata={"team_max_parallel_requests": N}),
            "metadata": lambda x: of(team_id=x, team_metadata=NUMBER),
            "record": lambda x: of(team_id=x, rows=rows.team(x, N)),
        }.items()
    ),
    *(
        Case("team_member", ask, lambda x: of(team_id=x, user_id="another"), source)
        for source, ask in {
            "metadata": lambda x: of(
                team_id=x, user_id="ann", team_metadata={"team_member_max_parallel_requests": N}
            ),
            "membership": lambda x: of(team_id=x, user_id="ann", rows=rows.member(x, "ann", N)),
            "default": lambda x: of(
                team_id=x,
                user_id="ann",
                team_metadata={"team_member_budget_id": x},
                rows=rows.member_default(x, N),
            ),
        }.items()
    ),
    Case(
        "organization",
        lambda x: of(org_id=x, organization_metadata=NUMBER),
        lambda _: of(org_id="another", organization_metadata=NUMBER),
        "metadata",
    ),
    Case(
        "organization",
        lambda x: of(org_id=x, rows=rows.organization(x, N)),
        lambda _: of(org_id="another"),
        "budget",
    ),
    Case(
        "model_per_organization",
        lambda x: of(org_id=x, organization_metadata=MODELS),
        lambda x: of("gpt-3.5-turbo", org_id=x, organization_metadata=MODELS),
    ),
    Case(
        "project",
        lambda x: of(project_id=x, project_metadata=NUMBER),
        lambda _: of(project_id="another", project_metadata=NUMBER),
    ),
    Case(
        "model_per_project",
        lambda x: of(project_id=x, project_metadata=MODELS),
        lambda x: of("gpt-3.5-turbo", project_id=x, project_metadata=MODELS),
    ),
    Case(
        "end_user",
        lambda x: of(body={"user": x}, rows=rows.customer(x, N)),
        lambda _: of(body={"user": "another"}),
        "body",
    ),
    Case(
        "end_user",
        lambda x: headed({"x-litellm-customer-id": x}, rows=rows.customer(x, N)),
        lambda x: headed({"x-litellm-customer-id": "another"}, rows=rows.customer(x, N)),
        "header",
    ),
    Case(
        "tag",
        lambda x: of(body={"metadata": {"tags": ["free", x]}}, rows=rows.tag(x, N)),
        lambda _: of(body={"metadata": {"tags": ["free", "other"]}}),
        "metadata",
    ),
    Case(
        "tag",
        lambda x: of(body={"tags": ["free", x]}, rows=rows.tag(x, N)),
        lambda _: of(body={"tags": ["free", "other"]}),
        "body",
    ),
    Case(
        "tag",
        lambda x: headed({"x-litellm-tags": f"free,{x}"}, rows=rows.tag(x, N)),
        lambda x: headed({"x-litellm-tags": "free,other"}, rows=rows.tag(x, N)),
        "header",
    ),
    Case("model", lambda _: of("two-boxes"), lambda _: of("gpt-4"), "largest of two"),
    Case("model", lambda x: of(f"wild/gated:{x}-{uuid4().hex}"), lambda _: of("gpt-4"), "wildcard"),
    Case("deployment", lambda _: of("one-box"), lambda _: of("gpt-4")),
    Case("pool", lambda _: of("llama-70b"), lambda _: of("gpt-4")),
    Case("per-organization", lambda x: of(org_id=f"op-{x}"), lambda _: of(org_id="op-another")),
    Case("per-project", lambda x: of(project_id=f"op-{x}"), lambda _: of(project_id="op-another")),
    Case("per-customer", lambda x: of(body={"user": f"op-{x}"}), lambda _: of(body={"user": "op-another"})),
    Case(
        "per-tag",
        lambda x: of(body={"metadata": {"tags": ["free", f"op-{x}"]}}),
        lambda _: of(body={"metadata": {"tags": ["free", "op-another"]}}),
    ),
    Case("per-key", lambda x: Ask(one_key(x, team_id="op-t"), "gpt-4"), lambda _: of(team_id="op-t")),
    Case("per-box", lambda _: of("gpt-4", user_id="op-u"), lambda _: of("gpt-3.5-turbo", user_id="op-u")),
)


NEEDS = {
    "user record": USERS_NUMBERS,
    "team_member default": MEMBERS_DEFAULTS,
    "organization budget": ORGANIZATIONS_BUDGETS,
    "project": PROJECTS,
    "model_per_project": PROJECTS,
    "per-project": PROJECTS,
    "end_user header": CUSTOMERS_HEADER,
}
"""What LiteLLM must be able to do."""


def test_every_limit_has_its_case() -> None:
    """No limit of LiteLLM's names, and none of the operator's here, goes untried."""
    tried = {case.limit for case in CASES}
    assert tried >= {built_in.name for built_in in BUILT_IN}
    assert tried >= {limit["name"] for limit in LIMITS} - {"everything"}


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=marks(NEEDS.get(str(case))), id=str(case)) for case in CASES]
)
async def test_it_holds_at_its_number(case: Case, limited_proxy: Proxy, provider: Provider) -> None:
    """So many are in flight, the next is refused by name, a neighbour is not, and the slots come back."""
    name = uuid4().hex
    async with held(limited_proxy, provider, [case.ask(name) for _ in range(N)]):
        refused = await case.ask(name).send(limited_proxy)
        assert refused.status_code == 429, refused.text
        assert refused.headers["x-parallel-limit-name"] == case.limit
        assert f"limit '{case.limit}' is full: {N} of {N} in flight" in refused.text
        await holds_exactly(limited_proxy, {case.limit: N, "everything": N})
        async with held(limited_proxy, provider, [case.neighbour(name)]):
            assert in_flight(limited_proxy)["everything"] == N + 1
    await limited_proxy.settled()
    again = case.ask(name)
    provider.open_gate(caller(again.key))
    assert (await again.send(limited_proxy)).status_code == 200
    await limited_proxy.settled()


def in_flight(proxy: Proxy) -> dict[str, int]:
    """Return how many are in flight in each limit's fullest scope."""
    scopes = proxy.status()["scopes"]
    names = {scope["name"] for scope in scopes}
    return {name: max(scope["in_flight"] for scope in scopes if scope["name"] == name) for name in names}


async def holds_exactly(proxy: Proxy, expected: dict[str, int]) -> None:
    """Return once so many are in flight there. Raises AssertionError if that never comes."""

    def is_so() -> bool:
        return in_flight(proxy).items() >= expected.items()

    await until(is_so, 2, lambda: in_flight(proxy))


@asynccontextmanager
async def held(proxy: Proxy, provider: Provider, asks: Sequence[Ask]) -> AsyncIterator[None]:
    """Have `asks` at the provider's gate during the block; then all of them are answered."""
    callers = {caller(ask.key) for ask in asks}

    def arrived() -> int:
        return sum(provider.count(caller=one).total for one in callers)

    def early() -> list[str]:
        return [answer.result().text for answer in sent if answer.done()]

    before = arrived()
    sent = [asyncio.create_task(ask.send(proxy)) for ask in asks]
    try:
        await until(lambda: arrived() - before == len(asks) or bool(early()), 20, arrived)
        assert early() == []
        yield
    finally:
        for one in callers:
            provider.open_gate(one)
        statuses = [(await answer).status_code for answer in sent]
    assert statuses == [200] * len(sent)


async def test_the_whole_proxy_has_a_limit(limited_proxy: Proxy, provider: Provider) -> None:
    """A limit without `models`, `by` and `where` counts everybody's requests together."""
    seen = await burst(limited_proxy, provider, [of(model) for model in ("gpt-4", "gpt-3.5-turbo") * 5])
    assert seen.held == 7
    assert {refusal.headers["x-parallel-limit-name"] for refusal in seen.refusals} == {"everything"}


async def test_a_refusal_by_one_limit_takes_no_slot_in_another(
    limited_proxy: Proxy, provider: Provider
) -> None:
    """A request that its tag's limit refuses has taken nothing of its organization's."""
    tag, organization = uuid4().hex, uuid4().hex
    body = {"metadata": {"tags": [tag]}}
    full = of(body=body, rows=rows.tag(tag, 1))
    both = of(body=body, rows=rows.tag(tag, 1), org_id=organization, organization_metadata=NUMBER)
    seen = await burst(limited_proxy, provider, [full, both, both, both])
    assert seen.held == 1
    in_organization = [of(org_id=organization, organization_metadata=NUMBER) for _ in range(N)]
    assert (await burst(limited_proxy, provider, in_organization)).statuses == {200: N}


async def test_every_tag_of_a_request_counts(limited_proxy: Proxy, provider: Provider) -> None:
    """A request with two tags holds a slot of each, and is refused by the one that is full."""
    one, other = uuid4().hex, uuid4().hex
    both = {**rows.tag(one, N), **rows.tag(other, 1)}
    asks = [
        of(body={"metadata": {"tags": [one, other]}}, rows=both),
        of(body={"metadata": {"tags": [other]}}, rows=both),
        of(body={"metadata": {"tags": [one]}}, rows=both),
    ]
    seen = await burst(limited_proxy, provider, asks)
    assert seen.held == N
    assert len(seen.refusals) == 1


@needs(FALLBACKS)
async def test_a_full_model_is_answered_by_its_fallback(limited_proxy: Proxy, provider: Provider) -> None:
    """The second request for a model of 1 is answered by its fallback, and holds nothing of the model."""
    async with (
        held(limited_proxy, provider, [of("falling")]),
        held(limited_proxy, provider, [of("falling")]),
    ):
        assert provider.count(model="gated:falling").in_flight == 1
        assert provider.count(model="gated:gpt-3.5-turbo").in_flight == 1
        await holds_exactly(limited_proxy, {"model": 1, "everything": 2})
    await limited_proxy.settled()
