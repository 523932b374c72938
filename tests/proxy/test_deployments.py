"""A deployment's number holds wherever LiteLLM's router sends a request, and the router loses nothing by it.

Each deployment has a model of its own at the provider, so that the provider's count tells where a request
runs.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any
from uuid import uuid4

import anthropic
import httpx
import openai
import pytest

from tests.conftest import StartProxy
from tests.rig.config import Config, config, deployment
from tests.rig.identities import caller, key
from tests.rig.litellm_version import FAILED_TRIES, needs
from tests.rig.polling import until
from tests.rig.process import StartError
from tests.rig.provider import Provider
from tests.rig.proxy import Proxy
from tests.rig.redis_server import RedisServer

pytestmark = pytest.mark.proxy

FIRST = 10**6
"""The weight of a deployment that the router chooses before one of weight 1, as good as always."""

WITHOUT_SLEEPS = 0.5
"""Seconds. The router's own sleep between two tries of a model is longer."""

CLIENTS, ROUNDS = 40, 3

MORE_THAN_ENOUGH = 20
"""Requests of which some go to each of two deployments, as good as always."""

LIMITS = [
    {"name": "second-pool", "models": ["second-in-pool"], "by": [], "max_parallel_requests": 1},
    {"name": "box", "where": {"user": "box-*"}, "by": ["deployment"], "max_parallel_requests": 1},
    {"name": "named-box", "models": ["boxed"], "by": ["deployment"], "max_parallel_requests": 1},
    {"name": "both", "models": ["listed", "other-listed"], "by": [], "max_parallel_requests": 2},
]

FALLBACKS = [
    {"crowded": ["spare"]},
    {"failing": ["second"]},
    {"failing-to-pool": ["second-in-pool"]},
    {"failing-to-box": ["second-boxes"]},
]

Says = Mapping[str, object]


@dataclass(frozen=True)
class Boxes:
    """The deployments of a model: what each says of limits, by its name, and what the provider does.

    A deployment's name is its id; the provider knows it as `behaviour:name`.
    """

    boxes: Mapping[str, Says]
    behaviours: Mapping[str, str] = field(default_factory=dict)
    weights: Mapping[str, int] = field(default_factory=dict)

    def deployments(self, model: str, provider: str) -> list[Config]:
        """Return them as they stand in LiteLLM's configuration, as deployments of `model`."""
        return [self._deployment(model, name, provider) for name in self.boxes]

    def _deployment(self, model: str, name: str, provider: str) -> Config:
        weight = {"weight": self.weights[name]} if name in self.weights else {}
        known_as = f"openai/{self.behaviours.get(name, 'gated')}:{name}"
        info = {"id": name, **({"parallel_limits": dict(self.boxes[name])} if self.boxes[name] else {})}
        return {**deployment(model, known_as, provider, **weight), "model_info": info}


def room(number: int) -> Says:
    """Return what a deployment of so much room says."""
    return {"max_parallel_requests": number}


def of_model(number: int) -> Says:
    """Return what a deployment says of its model's room."""
    return {"model_max_parallel_requests": number}


def failing(*names: str) -> Boxes:
    """Return deployments of room for one each that fail: two of them, and the router does not wait."""
    return Boxes(dict.fromkeys(names, room(1)), dict.fromkeys(names, "error-500"))


MODELS = {
    "pair": Boxes({"pair-1": room(1), "pair-2": room(2)}),
    "half": Boxes({"half-limited": room(1), "half-open": {}}),
    "single": Boxes({"single-1": room(1)}),
    "rate-limited": Boxes(
        {"limiting": room(1), "willing": room(1)},
        {"limiting": "error-429"},
        {"limiting": FIRST, "willing": 1},
    ),
    "broken": Boxes({"broken-1": room(1), "broken-2": room(1)}, {"broken-1": "error-500"}),
    "crowded": Boxes({"crowded-1": room(1), "crowded-2": room(1)}),
    "spare": Boxes({"spare-1": room(1), "spare-2": room(1)}),
    "failing": failing("failing-1", "failing-2"),
    "failing-to-pool": failing("failing-3", "failing-4"),
    "failing-to-box": failing("failing-5", "failing-6"),
    "failing-alone": failing("failing-7", "failing-8"),
    "second": Boxes({"second-1": {}}),
    "second-in-pool": Boxes({"second-2": {}}),
    "second-boxes": Boxes({"second-3": room(1), "second-4": room(1)}),
    "listed": Boxes({"listed-1": room(1), "listed-2": room(1)}),
    "other-listed": Boxes({"other-listed-1": room(1)}),
    "pooled": Boxes({"pooled-1": room(2)}),
    "left-out": Boxes({"left-out-1": {**room(1), "enabled": False}}),
    "half-left-out": Boxes({"still-in": room(1), "left-out-2": {**room(1), "enabled": False}}),
    "numbered": Boxes({"numbered-1": of_model(1), "numbered-2": of_model(3)}),
    "plain": Boxes({"plain-1": {}, "plain-2": {}}),
    "boxed": Boxes({"boxed-1": {}, "boxed-2": {}}),
    "busy": Boxes({"busy-1": room(2), "busy-2": room(2)}, {"busy-1": "slow@0.05", "busy-2": "slow@0.05"}),
    "enough": Boxes(
        {"enough-1": room(2), "enough-2": room(2)}, {"enough-1": "slow@0.02", "enough-2": "slow@0.02"}
    ),
    "full": Boxes({"full-1": room(2), "full-2": room(2)}),
}


def models(provider: Provider, *names: str) -> list[Config]:
    """Return the deployments of these models, of all if none is named."""
    return [
        *chain.from_iterable(MODELS[name].deployments(name, provider.url) for name in names or MODELS),
        {
            **deployment("wide/*", "openai/*", provider.url),
            "model_info": {"id": "wide", "parallel_limits": {"model_max_parallel_requests": 2}},
        },
    ]


@pytest.fixture(scope="module")
def routing_proxy(start_proxy: StartProxy, provider: Provider, redis_server: RedisServer) -> Proxy:
    """A proxy of two workers on Redis that sets failing deployments aside, and tries again twice."""
    return start_proxy(
        workers=2,
        redis_port=redis_server.port,
        models=models(provider),
        litellm_settings={"parallel_limits": {"limits": LIMITS}},
        router_settings={"num_retries": 2, "disable_cooldowns": False, "fallbacks": FALLBACKS},
    )


@pytest.fixture(scope="module")
def observing_proxy(start_proxy: StartProxy, provider: Provider) -> Proxy:
    """A proxy that only observes its limits."""
    return start_proxy(
        models=models(provider, "pair", "single"),
        litellm_settings={"parallel_limits": {"mode": "observe"}},
        router_settings={"num_retries": 2, "disable_cooldowns": False},
    )


@dataclass(frozen=True)
class Way:
    """A request of `key` for `model` to the route at `path`."""

    key: str
    model: str
    path: str = "/v1/chat/completions"
    body: Says = field(default_factory=dict)

    async def send(self, proxy: Proxy) -> httpx.Response:
        """Return the proxy's answer."""
        said = {"model": self.model, "messages": [{"role": "user", "content": "hi"}], **self.body}
        async with proxy.http(self.key) as client:
            return await client.post(self.path, json=said)


WAYS: Mapping[str, tuple[str, Says]] = {
    "chat": ("/v1/chat/completions", {}),
    "chat, streamed": ("/v1/chat/completions", {"stream": True}),
    "chat that asks for retries": ("/v1/chat/completions", {"num_retries": 5}),
    "messages": ("/v1/messages", {"max_tokens": 9}),
    "messages, streamed": ("/v1/messages", {"max_tokens": 9, "stream": True}),
    "responses": ("/v1/responses", {"input": "hi"}),
}


def ways(route: str, model: str, number: int) -> list[Way]:
    """Return so many requests for `model`, each of a key of its own."""
    path, body = WAYS[route]
    return [Way(key(), model, path, body) for _ in range(number)]


@asynccontextmanager
async def held(proxy: Proxy, provider: Provider, asks: Sequence[Way]) -> AsyncIterator[list[Any]]:
    """Send `asks` at once, and hold them at the provider for the block; yield the answers that came at once.

    With the block they are let go, and nothing of them stays in flight.
    """
    callers = {caller(ask.key) for ask in asks}
    before = proxy.status()["in_flight"]
    sent = [asyncio.create_task(ask.send(proxy)) for ask in asks]

    def decided() -> tuple[int, int]:
        return sum(task.done() for task in sent), sum(provider.count(caller=one).in_flight for one in callers)

    try:
        await until(lambda: sum(decided()) >= len(sent), 20, decided)
        yield [task.result() for task in sent if task.done()]
    finally:
        for one in callers:
            provider.open_gate(one)
        await asyncio.gather(*sent)
    await proxy.shows(before, 5)


def at(provider: Provider, *boxes: str) -> list[int]:
    """Return how many requests the provider holds for each of these deployments."""
    return [provider.count(model=f"gated:{box}").in_flight for box in boxes]


def peaks(provider: Provider, *names: str) -> list[int]:
    """Return how many requests the provider had at most at once of each of these models of its own."""
    return [provider.count(model=name).peak for name in names]


def slots(proxy: Proxy, name: str = "deployment") -> dict[str, int]:
    """Return how many slots of the limit `name` are taken, by what it counts."""
    scopes = [scope for scope in proxy.status()["scopes"] if scope["name"] == name]
    return {",".join(scope["scope"].values()): scope["in_flight"] for scope in scopes}


def set_aside(redis_server: RedisServer) -> list[str]:
    """Return the deployments that LiteLLM's router has set aside, as it keeps them in Redis."""
    return [str(name) for name in redis_server.client.keys("*cooldown*")]


def assert_refused(answer: httpx.Response, limit: str = "deployment") -> None:
    """The answer is a 429 that `limit` is full, with all that a client goes by."""
    assert answer.status_code == 429, answer.text
    assert f"Parallel request limit '{limit}' is full" in answer.json()["error"]["message"]
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.headers["rate_limit_type"] == "max_parallel_requests"
    assert answer.headers["x-parallel-limit-name"] == limit
    assert answer.headers["x-parallel-limit-reason"] == "limit"


# A group of limited deployments


@pytest.mark.parametrize("route", WAYS)
async def test_a_group_holds_what_its_deployments_hold(
    routing_proxy: Proxy, provider: Provider, route: str
) -> None:
    """Of deployments with room for 1 and for 2 three requests are held, each within its number.

    More are refused with a clean 429, without the sleeps of the router's retries.
    """
    async with held(routing_proxy, provider, ways(route, "pair", 3)) as refused:
        assert refused == []
        assert at(provider, "pair-1", "pair-2") == [1, 2]
        assert slots(routing_proxy) == {"pair-1": 1, "pair-2": 2}
        fourth = [await way.send(routing_proxy) for way in ways(route, "pair", 4)]
        for answer in fourth:
            assert_refused(answer)
        assert min(answer.elapsed.total_seconds() for answer in fourth) < WITHOUT_SLEEPS
        assert slots(routing_proxy) == {"pair-1": 1, "pair-2": 2}
    assert peaks(provider, "gated:pair-1", "gated:pair-2") == [1, 2]


async def test_a_burst_fills_a_group_to_its_number(routing_proxy: Proxy, provider: Provider) -> None:
    """Of six requests at once three are held and three refused, whatever the router tries first."""
    async with held(routing_proxy, provider, ways("chat", "pair", 6)) as refused:
        for answer in refused:
            assert_refused(answer)
        assert at(provider, "pair-1", "pair-2") == [1, 2]


async def test_openais_client_meets_a_rate_limit(routing_proxy: Proxy, provider: Provider) -> None:
    """OpenAI's client raises its own rate-limit error, with our message and headers."""
    async with (
        routing_proxy.async_openai(key()) as client,
        held(routing_proxy, provider, ways("chat", "pair", 3)),
    ):
        with pytest.raises(openai.RateLimitError, match="limit 'deployment' is full") as refused:
            await client.chat.completions.create(model="pair", messages=[{"role": "user", "content": "hi"}])
    assert refused.value.response.headers["x-parallel-limit-name"] == "deployment"


async def test_anthropics_client_meets_a_rate_limit(routing_proxy: Proxy, provider: Provider) -> None:
    """Anthropic's client raises its own rate-limit error, with our message and headers."""
    async with (
        routing_proxy.async_anthropic(key()) as client,
        held(routing_proxy, provider, ways("messages", "pair", 3)),
    ):
        with pytest.raises(anthropic.RateLimitError, match="limit 'deployment' is full") as refused:
            await client.messages.create(
                model="pair", max_tokens=9, messages=[{"role": "user", "content": "hi"}]
            )
    assert refused.value.response.headers["x-parallel-limit-name"] == "deployment"


async def test_an_unlimited_deployment_takes_the_rest(routing_proxy: Proxy, provider: Provider) -> None:
    """When the limited deployment is full everything goes to the other; nothing is refused."""
    async with held(routing_proxy, provider, ways("chat", "half", 12)) as refused:
        assert refused == []
        limited, unlimited = at(provider, "half-limited", "half-open")
        assert (limited, unlimited) in {(0, 12), (1, 11)}
        assert slots(routing_proxy) == ({"half-limited": 1} if limited else {})
    assert peaks(provider, "gated:half-limited")[0] <= 1


async def test_a_full_deployment_is_not_set_aside(
    routing_proxy: Proxy, provider: Provider, redis_server: RedisServer
) -> None:
    """Right after refusals, as soon as the slots are back, every deployment gets requests again."""
    for _ in range(2):
        async with held(routing_proxy, provider, ways("chat", "pair", 3)) as refused:
            assert refused == []
            assert at(provider, "pair-1", "pair-2") == [1, 2]
            answers = await asyncio.gather(*(way.send(routing_proxy) for way in ways("chat", "pair", 12)))
            assert {answer.status_code for answer in answers} == {429}
    assert not [name for name in set_aside(redis_server) if "pair" in name]
    assert "No deployments available" not in routing_proxy.log()


# Retries


@needs(FAILED_TRIES)
async def test_a_retry_is_counted_where_it_lands(
    routing_proxy: Proxy, provider: Provider, redis_server: RedisServer
) -> None:
    """The slot in a deployment that failed is given back, that in the next one taken.

    LiteLLM sets a deployment aside for the provider's own 429, so that the retry goes to the other.
    """
    async with held(routing_proxy, provider, ways("chat", "rate-limited", 1)):
        await provider.holds(1, model="gated:willing")
        assert provider.count(model="error-429:limiting").total
        assert slots(routing_proxy) == {"willing": 1}
        assert [name for name in set_aside(redis_server) if "limiting" in name]
        [second] = ways("chat", "rate-limited", 1)
        assert_refused(await second.send(routing_proxy))


@needs(FAILED_TRIES)
async def test_a_failed_try_gives_its_slot_to_the_next(routing_proxy: Proxy, provider: Provider) -> None:
    """A deployment of room for one that answers 500 is tried three times by one request.

    That the other is full is no error of its own: the client gets the provider's.
    """
    async with filled(routing_proxy, provider, "broken-2"):
        [failing] = ways("chat", "broken", 1)
        answer = await failing.send(routing_proxy)
        assert answer.status_code == 500, answer.text
        assert provider.count(model="error-500:broken-1", caller=caller(failing.key)).total == 3
        await until(lambda: slots(routing_proxy) == {"broken-2": 1}, 2, routing_proxy.status)
    assert peaks(provider, "error-500:broken-1") == [1]


async def test_many_failing_requests_stay_within_the_numbers(
    routing_proxy: Proxy, provider: Provider
) -> None:
    """Retries of many requests at once overrun no deployment, and leave nothing in flight."""
    sent = ways("chat", "failing-alone", 12)
    answers = await asyncio.gather(*(way.send(routing_proxy) for way in sent))
    assert {answer.status_code for answer in answers} <= {429, 500}
    assert peaks(provider, "error-500:failing-7", "error-500:failing-8") == [1, 1]
    await routing_proxy.settled()


@asynccontextmanager
async def filled(proxy: Proxy, provider: Provider, box: str, number: int = 1) -> AsyncIterator[None]:
    """Hold so many requests in one deployment, named by its id, for the block."""
    async with held(proxy, provider, ways("chat", box, number)) as refused:
        assert refused == []
        assert at(provider, box) == [number]
        yield


# Fallbacks of the router


KEYS_NUMBERS = {"metadata": {"model_max_parallel_requests": {"*": 9}}}


async def test_a_full_group_is_answered_by_its_fallback(routing_proxy: Proxy, provider: Provider) -> None:
    """Where every deployment is full the fallback answers, and a slot is held only where a request runs."""
    one = key(**KEYS_NUMBERS)
    async with held(routing_proxy, provider, [Way(one, "crowded")] * 4) as refused:
        assert refused == []
        boxes = ["crowded-1", "crowded-2", "spare-1", "spare-2"]
        assert at(provider, *boxes) == [1, 1, 1, 1]
        assert slots(routing_proxy) == dict.fromkeys(boxes, 1)
        of_models = slots(routing_proxy, "model_per_key")
        assert sorted(of_models.values()) == [2, 2], of_models
        assert_refused(await Way(key(), "crowded").send(routing_proxy))
        assert slots(routing_proxy) == dict.fromkeys(boxes, 1)


@pytest.mark.parametrize("route", ["chat, streamed", "messages"])
async def test_a_fallback_answers_on_other_routes(
    routing_proxy: Proxy, provider: Provider, route: str
) -> None:
    """Streams and Anthropic's route fall back, too."""
    async with held(routing_proxy, provider, ways(route, "crowded", 3)) as refused:
        assert refused == []
        assert sum(at(provider, "crowded-1", "crowded-2")) == 2
        assert sum(at(provider, "spare-1", "spare-2")) == 1


@pytest.mark.parametrize(
    ("model", "body"),
    [("failing", {}), ("failing-alone", {"fallbacks": ["second"]})],
    ids=["the router's", "the client's"],
)
async def test_a_fallback_after_an_error_takes_the_place(
    routing_proxy: Proxy, provider: Provider, model: str, body: Says
) -> None:
    """The second model's slots are taken, the first's given back, whoever names the fallback."""
    numbers = {model: 1, "second": 1}
    one = key(metadata={"model_max_parallel_requests": numbers})
    async with held(routing_proxy, provider, [Way(one, model, body=body)]):
        await provider.holds(1, model="gated:second-1", caller=caller(one))
        assert list(slots(routing_proxy, "model_per_key")) == [shown(routing_proxy, one, "second")]
        assert slots(routing_proxy) == {}


@pytest.mark.parametrize(
    ("model", "body"),
    [("failing", {}), ("failing-alone", {"fallbacks": ["second"]})],
    ids=["the router's", "the client's"],
)
async def test_a_full_fallback_leaves_the_first_error(
    routing_proxy: Proxy, provider: Provider, model: str, body: Says
) -> None:
    """If the key's number of the second model is taken, the client gets the first model's error."""
    one = key(metadata={"model_max_parallel_requests": {"second": 1}})
    async with held(routing_proxy, provider, [Way(one, "second")]):
        answer = await Way(one, model, body=body).send(routing_proxy)
        assert answer.status_code == 500, answer.text
        assert at(provider, "second-1") == [1]
        await routing_proxy.shows(1, 2)


async def test_a_full_pool_of_the_fallback_leaves_the_first_error(
    routing_proxy: Proxy, provider: Provider
) -> None:
    """A fallback takes a slot in its operator's pool; when the pool is full the client gets the error."""
    async with held(routing_proxy, provider, [Way(key(), "failing-to-pool")]):
        await provider.holds(1, model="gated:second-2")
        assert slots(routing_proxy, "second-pool") == {"": 1}
        assert slots(routing_proxy) == {}
        answer = await Way(key(), "failing-to-pool").send(routing_proxy)
        assert answer.status_code == 500, answer.text
        await routing_proxy.shows(1, 2)


async def test_full_deployments_of_the_fallback_leave_the_first_error(
    routing_proxy: Proxy, provider: Provider
) -> None:
    """A fallback is held to its deployments' numbers; when they are full the client gets the error."""
    async with held(routing_proxy, provider, ways("chat", "second-boxes", 2)):
        answer = await Way(key(), "failing-to-box").send(routing_proxy)
        assert answer.status_code == 500, answer.text
        assert slots(routing_proxy) == {"second-3": 1, "second-4": 1}


def shown(proxy: Proxy, one: str, model: str) -> str:
    """Return how the status calls a key's count of a model."""
    return next(name for name in slots(proxy, "model_per_key") if name.endswith(f",{model}"))


# Only one deployment can answer


@pytest.mark.parametrize(
    ("model", "box"), [("single", "single-1"), ("pair-1", "pair-1"), ("pair-2", "pair-2")]
)
async def test_a_deployment_alone_is_limited_at_admission(
    routing_proxy: Proxy, provider: Provider, model: str, box: str
) -> None:
    """A model's only deployment, or one that is named by its id, is announced and refused as other limits."""
    number = 2 if box == "pair-2" else 1
    sent = ways("chat", model, number)
    async with held(routing_proxy, provider, sent) as refused:
        assert refused == []
        assert at(provider, box) == [number]
        assert slots(routing_proxy) == {box: number}
        refusal = await Way(key(), model).send(routing_proxy)
        assert_refused(refusal)
        assert f"{number} of {number} in flight for deployment={box}" in refusal.json()["error"]["message"]
    [again] = ways("chat", model, 1)
    provider.open_gate(caller(again.key))
    answer = await again.send(routing_proxy)
    assert answer.headers["x-ratelimit-deployment-limit-max_parallel_requests"] == str(number)


async def test_an_id_and_its_group_share_a_count(routing_proxy: Proxy, provider: Provider) -> None:
    """Requests for a deployment by its id and by its group's name are counted together."""
    async with (
        filled(routing_proxy, provider, "pair-2", 2),
        held(routing_proxy, provider, ways("chat", "pair", 3)) as refused,
    ):
        assert len(refused) == 2
        assert at(provider, "pair-1", "pair-2") == [1, 2]
        assert_refused(await Way(key(), "pair-2").send(routing_proxy))


# Several models in one request


@pytest.mark.parametrize(
    ("model", "most"),
    [
        ("listed,other-listed", 2),
        ("other-listed,listed", 2),
        ("listed,listed", 2),
        ("listed,listed-1", 2),
        ("other-listed,other-listed", 1),
        ("pooled,pooled", 2),
        ("pooled,pooled-1,pooled", 2),
        ("pair,pair-1,pair,pair", 3),
    ],
)
async def test_a_list_of_models_overruns_no_number(
    routing_proxy: Proxy, provider: Provider, model: str, most: int
) -> None:
    """Named together or twice, no deployment and no pool is above its number; every slot comes back."""
    one = key()
    provider.open_gate(caller(one))
    for _ in range(2):
        answers = await asyncio.gather(*(Way(one, model).send(routing_proxy) for _ in range(6)))
        assert {answer.status_code for answer in answers} <= {200, 429}, [each.text for each in answers]
        await routing_proxy.settled()
    assert provider.count(caller=caller(one)).peak <= most
    boxes = {"listed-1": 1, "listed-2": 1, "other-listed-1": 1, "pooled-1": 2, "pair-1": 1, "pair-2": 2}
    seen = dict(zip(boxes, peaks(provider, *(f"gated:{box}" for box in boxes)), strict=True))
    assert all(seen[box] <= number for box, number in boxes.items()), seen


@pytest.mark.parametrize(
    ("model", "runs"),
    [("listed,other-listed", 2), ("listed,listed", 2), ("pooled,pooled", 2)],
)
async def test_a_list_of_models_takes_a_slot_where_each_runs(
    routing_proxy: Proxy, provider: Provider, model: str, runs: int
) -> None:
    """A request for several models holds a slot for each of them, and meets the operator's pool with each."""
    one = key()
    sent = asyncio.create_task(Way(one, model).send(routing_proxy))
    await provider.holds(runs, caller=caller(one))
    assert sum(slots(routing_proxy).values()) == runs
    provider.open_gate(caller(one))
    answer = await sent
    assert answer.status_code == 200, answer.text
    assert len(answer.json()) == runs
    await routing_proxy.settled()


async def test_a_list_that_cannot_be_held_is_refused(routing_proxy: Proxy, provider: Provider) -> None:
    """A model of room for one that is named twice in one request is refused, and holds nothing."""
    one = key()
    provider.open_gate(caller(one))
    assert_refused(await Way(one, "other-listed,other-listed").send(routing_proxy))
    assert provider.count(caller=caller(one)).total == 0
    await routing_proxy.settled()


# What else the operator says of deployments


async def test_a_deployment_left_out_has_no_limit(routing_proxy: Proxy, provider: Provider) -> None:
    """With `enabled: false` a deployment's number does not hold, and its model meets no limit by model."""
    one = key(metadata={"model_max_parallel_requests": {"left-out": 1}})
    async with held(routing_proxy, provider, [Way(one, "left-out")] * 4) as refused:
        assert refused == []
        assert at(provider, "left-out-1") == [4]
        assert routing_proxy.status()["scopes"] == []


async def test_a_deployment_beside_one_left_out_keeps_its_number(
    routing_proxy: Proxy, provider: Provider
) -> None:
    """Of two deployments of which one is left out, the other holds its number, and nothing is refused."""
    async with held(routing_proxy, provider, ways("chat", "half-left-out", 6)) as refused:
        assert refused == []
        assert at(provider, "still-in")[0] <= 1
        assert set(slots(routing_proxy)) <= {"still-in"}
    assert peaks(provider, "gated:still-in")[0] <= 1


async def test_the_largest_number_of_a_model_holds(routing_proxy: Proxy, provider: Provider) -> None:
    """Of deployments that say 1 and 3 of their model, three of the model are held, wherever they run."""
    async with held(routing_proxy, provider, ways("chat", "numbered", 5)) as refused:
        assert sum(at(provider, "numbered-1", "numbered-2")) == 3
        assert len(refused) == 2
        for answer in refused:
            assert_refused(answer, "model")


async def test_the_names_of_a_wildcard_share_its_number(routing_proxy: Proxy, provider: Provider) -> None:
    """The number of a wildcard is for all its names together."""
    asks = [Way(key(), f"wide/gated:wide-{name}") for name in "abcd"]
    async with held(routing_proxy, provider, asks) as refused:
        assert sum(at(provider, *(f"wide-{name}" for name in "abcd"))) == 2
        for answer in refused:
            assert_refused(answer, "model")


@pytest.mark.parametrize(
    ("model", "limit", "user"), [("plain", "box", "box-user"), ("boxed", "named-box", "someone")]
)
async def test_an_operators_limit_by_deployment(
    routing_proxy: Proxy, provider: Provider, model: str, limit: str, user: str
) -> None:
    """A limit by deployment gives each deployment a count of its own, for whom and what it is about."""
    asks = [Way(key(user_id=user), model) for _ in range(4)]
    async with held(routing_proxy, provider, asks) as refused:
        assert at(provider, f"{model}-1", f"{model}-2") == [1, 1]
        assert slots(routing_proxy, limit) == {f"{model}-1": 1, f"{model}-2": 1}
        assert len(refused) == 2
        for answer in refused:
            assert_refused(answer, limit)


# Observed


@pytest.mark.parametrize("model", ["pair", "single"])
async def test_observed_deployments_refuse_nothing(
    observing_proxy: Proxy, provider: Provider, model: str
) -> None:
    """In mode `observe` a full deployment is used all the same, and the headers say what would be refused."""
    would = "x-parallel-limit-would-refuse"
    last, again = key(), key()
    for one in (last, again):
        provider.open_gate(caller(one))
    async with AsyncExitStack() as holding:
        for way in ways("chat", model, MORE_THAN_ENOUGH):  # one by one: the router chooses by chance
            assert await holding.enter_async_context(held(observing_proxy, provider, [way])) == []
        answer = await Way(last, model).send(observing_proxy)
        assert answer.status_code == 200
        assert answer.headers.get(would) == "deployment"
    assert would not in (await Way(again, model).send(observing_proxy)).headers


# Many at once


async def test_many_at_once_overrun_no_deployment(routing_proxy: Proxy, provider: Provider) -> None:
    """Over two deployments of room for two each, many clients are never more than two in either.

    Both are full meanwhile, and nothing is left over.
    """

    async def client() -> list[int]:
        one = key()
        return [(await Way(one, "busy").send(routing_proxy)).status_code for _ in range(ROUNDS)]

    statuses = list(chain.from_iterable(await asyncio.gather(*(client() for _ in range(CLIENTS)))))
    assert set(statuses) == {200, 429}
    assert peaks(provider, "slow@0.05:busy-1", "slow@0.05:busy-2") == [2, 2]
    await routing_proxy.settled()


@pytest.mark.parametrize("_", range(ROUNDS))
async def test_no_slot_is_lost_to_the_routers_choosing(
    routing_proxy: Proxy, provider: Provider, _: int
) -> None:
    """Of many requests at once as many are held as there is room; the others are refused."""
    async with held(routing_proxy, provider, ways("chat", "full", CLIENTS)) as refused:
        assert at(provider, "full-1", "full-2") == [2, 2]
        assert len(refused) == CLIENTS - 4
    assert peaks(provider, "gated:full-1", "gated:full-2") == [2, 2]


async def test_no_more_clients_than_room_are_not_refused(routing_proxy: Proxy, provider: Provider) -> None:
    """Where there is room for four, four clients that send one request after another are all answered.

    But for one: requests look again for as long as a call of Redis takes, and a busy machine may take longer.
    """

    async def client() -> list[int]:
        one = key()
        return [(await Way(one, "enough").send(routing_proxy)).status_code for _ in range(25)]

    statuses = Counter(chain.from_iterable(await asyncio.gather(*(client() for _ in range(4)))))
    assert statuses.keys() <= {200, 429}
    assert statuses[200] >= 99


# Mistakes


def test_a_mistake_in_model_info_stops_the_start(folder: Callable[[str], Path]) -> None:
    """What a deployment says of limits is read as strictly as the section, and told with its place."""
    wrong = {
        **deployment("wrong", "openai/ok", "http://127.0.0.1:9"),
        "model_info": {"parallel_limits": {"max_parallel_requests": -1, "max_paralel": 2}},
    }
    settings: dict[str, Any] = config("http://127.0.0.1:9", models=[wrong])
    with pytest.raises(StartError) as failed:
        Proxy.start(folder(f"mistake-{uuid4().hex[:6]}"), settings)
    place = f"model_list[{len(settings['model_list']) - 1}].model_info.parallel_limits"
    assert f"{place}.max_parallel_requests: not a whole number from 0 on; got -1" in str(failed.value)
    assert f"{place}.max_paralel: unknown" in str(failed.value)
