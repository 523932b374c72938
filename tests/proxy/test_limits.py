"""Every limit holds at its number, for those it counts and for nobody else."""

from __future__ import annotations

from uuid import uuid4

import pytest

from tests.rig.burst import Ask, burst
from tests.rig.identities import caller, key
from tests.rig.provider import Provider
from tests.rig.proxy import Proxy

pytestmark = pytest.mark.proxy


async def test_a_full_model_leaves_another_model_open(operator_proxy: Proxy, provider: Provider) -> None:
    """gpt-4 at 2 is full; gpt-3.5-turbo at 5 still answers the same key."""
    one = key(metadata={"model_max_parallel_requests": {"gpt-4": 2, "gpt-3.5-turbo": 5}})
    seen = await burst(operator_proxy, provider, [Ask(one, "gpt-4")] * 4 + [Ask(one, "gpt-3.5-turbo")] * 5)
    assert seen.held == 2 + 5
    assert seen.statuses == {200: 7, 429: 2}
    assert {refusal.headers["x-parallel-limit-name"] for refusal in seen.refusals} == {"model_per_key"}
    await operator_proxy.settled()


async def test_the_keys_of_a_team_share_its_pool_for_a_model(
    operator_proxy: Proxy, provider: Provider
) -> None:
    """A team's pool of 2 holds over three of its keys; a key's own number does not widen it."""
    team = {"team_id": uuid4().hex, "team_metadata": {"team_model_max_parallel_requests": {"gpt-4": 2}}}
    keys = [key(**team), key(**team), key(**team, metadata={"model_max_parallel_requests": {"gpt-4": 9}})]
    seen = await burst(operator_proxy, provider, [Ask(one, "gpt-4") for one in keys for _ in range(2)])
    assert seen.held == 2
    assert {refusal.headers["x-parallel-limit-name"] for refusal in seen.refusals} == {"model_per_team"}


async def test_a_teams_default_is_for_each_of_its_keys(operator_proxy: Proxy, provider: Provider) -> None:
    """A team's model_max_parallel_requests gives each key a room of its own."""
    team = {"team_id": uuid4().hex, "team_metadata": {"model_max_parallel_requests": {"gpt-4": 1}}}
    seen = await burst(operator_proxy, provider, [Ask(key(**team), "gpt-4"), Ask(key(**team), "gpt-4")])
    assert seen.statuses == {200: 2}


@pytest.mark.parametrize("source", ["auth", "metadata"])
async def test_a_user_is_limited_over_two_keys(
    operator_proxy: Proxy, provider: Provider, source: str
) -> None:
    """A user's limit of 2 holds over the user's keys, wherever custom auth puts the number."""
    number = {"user_max_parallel_requests": 2}
    record = {"user_id": uuid4().hex, **(number if source == "auth" else {"metadata": number})}
    seen = await burst(
        operator_proxy, provider, [Ask(one) for one in (key(**record), key(**record)) for _ in "ab"]
    )
    assert seen.held == 2
    assert {refusal.headers["x-parallel-limit-name"] for refusal in seen.refusals} == {"user"}


@pytest.mark.parametrize(
    "record",
    [
        {"team_max_parallel_requests": 2},
        {"team_metadata": {"team_max_parallel_requests": 2, "max_parallel_requests": 9}},
        {"team_metadata": {"max_parallel_requests": "2"}},
    ],
)
async def test_a_team_is_limited_over_three_keys(
    operator_proxy: Proxy, provider: Provider, record: dict[str, object]
) -> None:
    """A team's limit of 2 holds over the team's keys; another team is free."""
    team = {"team_id": uuid4().hex, **record}
    others = key(team_id=uuid4().hex)
    seen = await burst(operator_proxy, provider, [Ask(key(**team)) for _ in range(3)] + [Ask(others)])
    assert seen.held == 2 + 1
    assert {refusal.headers["x-parallel-limit-name"] for refusal in seen.refusals} == {"team"}


async def test_a_key_is_limited_over_all_models(operator_proxy: Proxy, provider: Provider) -> None:
    """The metadata's max_parallel_requests counts every request of the key."""
    one = key(metadata={"max_parallel_requests": 1})
    seen = await burst(operator_proxy, provider, [Ask(one, "gpt-4"), Ask(one, "gpt-3.5-turbo")])
    assert seen.statuses == {200: 1, 429: 1}


async def test_an_alias_counts_with_its_group(operator_proxy: Proxy, provider: Provider) -> None:
    """A router alias and the group it stands for share one count and one number."""
    one = key(metadata={"model_max_parallel_requests": {"gpt-4": 1}})
    seen = await burst(operator_proxy, provider, [Ask(one, "gpt-4"), Ask(one, "gpt-4-alias")])
    assert seen.statuses == {200: 1, 429: 1}
    assert "model=gpt-4 " in seen.refusals[0].json()["error"]["message"]


async def test_an_alias_of_the_key_counts_with_its_group(operator_proxy: Proxy, provider: Provider) -> None:
    """A key's alias finds the number given under its own name, and is counted with what it stands for."""
    one = key(aliases={"smart": "gpt-4"}, metadata={"model_max_parallel_requests": {"smart": 1, "gpt-4": 2}})
    seen = await burst(operator_proxy, provider, [Ask(one, "gpt-4"), Ask(one, "gpt-4"), Ask(one, "smart")])
    assert seen.held == 2
    assert len(seen.refusals) == 1


async def test_a_deployments_id_counts_with_its_group(operator_proxy: Proxy, provider: Provider) -> None:
    """Naming the deployment instead of its group, as LiteLLM's answers tell it, is no way round a limit."""
    one = key(metadata={"model_max_parallel_requests": {"gpt-4": 1}})
    first = await burst(operator_proxy, provider, [Ask(one, "gpt-4")])
    deployment = first.answers[0].headers["x-litellm-model-id"]
    provider.close_gate(caller(one))
    seen = await burst(operator_proxy, provider, [Ask(one, "gpt-4"), Ask(one, deployment)])
    assert seen.statuses == {200: 1, 429: 1}


async def test_a_pool_is_shared_by_names_and_strangers(operator_proxy: Proxy, provider: Provider) -> None:
    """A limit with `by: []` counts everybody together, over all its models, keys and workers."""
    asks = [Ask(key(), model) for model in ("llama-70b", "llama-8b") for _ in range(4)]
    seen = await burst(operator_proxy, provider, asks)
    assert seen.held == 3
    assert {refusal.headers["x-parallel-limit-name"] for refusal in seen.refusals} == {"gpu-box"}


async def test_where_chooses_whom_a_limit_is_about(operator_proxy: Proxy, provider: Provider) -> None:
    """`where` matches a team by its alias as by its id; each model of a matched team has its own count."""
    team = {"team_id": uuid4().hex, "team_alias": f"research-{uuid4().hex}"}
    asks = [Ask(key(**team), model) for model in ("gpt-4", "gpt-3.5-turbo") for _ in range(3)]
    seen = await burst(operator_proxy, provider, [*asks, *(Ask(key(team_id="sales")) for _ in range(3))])
    assert seen.held == 2 + 2 + 3
    assert {refusal.headers["x-parallel-limit-name"] for refusal in seen.refusals} == {"research"}


async def test_a_customer_is_who_the_request_says(operator_proxy: Proxy, provider: Provider) -> None:
    """`by: [end_user]` counts by the request's `user`; a request without one does not meet the limit."""
    shop = key(team_id="shop")
    customers = [Ask(shop, body={"user": name}) for name in ("ann", "ann", "bob")]
    seen = await burst(operator_proxy, provider, [*customers, Ask(shop), Ask(shop)])
    assert [answer.status_code for answer in seen.answers[2:]] == [200, 200, 200]
    assert len(seen.refusals) == 1


async def test_zero_blocks(operator_proxy: Proxy, provider: Provider) -> None:
    """A limit of 0 admits nobody, and tells the client not to try again."""
    seen = await burst(operator_proxy, provider, [Ask(key(), "gpt-3-retired")])
    [refusal] = seen.refusals
    assert refusal.headers["retry-after"] == "60"
    assert refusal.headers["x-should-retry"] == "false"


async def test_an_observed_limit_refuses_nobody(operator_proxy: Proxy, provider: Provider) -> None:
    """With mode `observe` a request over the limit is admitted, and status shows both."""
    one = key(user_id=f"watched-{uuid4().hex}")
    seen = await burst(operator_proxy, provider, [Ask(one)] * 3)
    assert seen.statuses == {200: 3}
    assert {answer.headers["x-ratelimit-watched-limit-max_parallel_requests"] for answer in seen.answers} == {
        "1"
    }


async def test_all_limits_are_taken_or_none(operator_proxy: Proxy, provider: Provider) -> None:
    """A request refused by its user's limit has taken no slot in its key's limit."""
    user = {"user_id": uuid4().hex, "user_max_parallel_requests": 1}
    blocked, free = key(**user, metadata={"max_parallel_requests": 1}), key(**user)
    seen = await burst(operator_proxy, provider, [Ask(free)] + [Ask(blocked)] * 3)
    assert seen.held == 1
    await operator_proxy.settled()
    again = await burst(operator_proxy, provider, [Ask(blocked)])
    assert again.statuses == {200: 1}


async def test_comma_separated_models_take_a_slot_in_each(operator_proxy: Proxy, provider: Provider) -> None:
    """A request for two models at once meets the limits of both."""
    one = key(metadata={"model_max_parallel_requests": {"gpt-4": 2, "gpt-3.5-turbo": 1}})
    seen = await burst(operator_proxy, provider, [Ask(one, "gpt-3.5-turbo")])
    both = await Ask(one, "gpt-4,gpt-3.5-turbo").send(operator_proxy)
    assert seen.statuses == {200: 1}
    assert both.headers["x-ratelimit-model_per_key-remaining-max_parallel_requests"] == "0"


async def test_no_limit_no_trace(operator_proxy: Proxy, provider: Provider) -> None:
    """A request that meets no limit is answered without a header of ours, and holds nothing."""
    seen = await burst(operator_proxy, provider, [Ask(key())])
    assert not [name for name in seen.answers[0].headers if "parallel" in name]
