"""Requests wait their turn, on every store, on every route, and for as long as they may."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import openai
import pytest
import yaml
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.conftest import KEEP_ALIVE
from tests.rig.config import config, deployment
from tests.rig.identities import CALLER, admin_key, caller, key
from tests.rig.litellm_version import FALLBACKS, REALTIME_WITHOUT_TLS, needs
from tests.rig.polling import until
from tests.rig.process import HOST
from tests.rig.provider import Provider
from tests.rig.proxy import PLAIN, Proxy
from tests.rig.redis_server import RedisServer
from tests.rig.routes import ROUTES, Route
from tests.rig.together import together
from tests.rig.waiting import Queue

pytestmark = pytest.mark.proxy

READS_ITS_CONFIG = "/get/config/callbacks"
TRY_AGAIN_LATER = 1013
BRIEF_SECONDS = 1.0
AT_ONCE = 0.7
"""Seconds: an answer that did not wait, on a machine that has other things to do."""

REASON = "x-parallel-limit-reason"
WAITED = "x-parallel-limit-waited-ms"
MAX_WAIT = "x-parallel-limit-max-wait"


def entry(name: str, number: int = 1, **wait: object) -> dict[str, Any]:
    """Return a limit by organization, for those whose names begin with its own."""
    who = {"where": {"organization": f"{name}-*"}, "by": ["organization"]}
    return {"name": name, **who, "max_parallel_requests": number, "wait": {"max_seconds": 20, **wait}}


LIMITS = [
    entry("pool", max_waiting=4),
    entry("crowd", max_waiting=1000),
    entry("brief", max_seconds=BRIEF_SECONDS),
    entry("raised"),
    entry("lowered", 2),
]
SECTION: dict[str, Any] = {"limits": LIMITS}
FULL = {"model_info": {"parallel_limits": {"max_parallel_requests": 1}}}


@pytest.fixture(scope="module")
def started(
    provider: Provider, redis_server: RedisServer, folder: Callable[[str], Path]
) -> Iterator[dict[str, Proxy]]:
    """Two proxies on Redis, one of two workers on `host` that keeps streams alive, and one in memory."""
    plain = {"parallel_limits": SECTION}
    small = {**deployment("small", "openai/gated:small", provider.url), **FULL}
    configs = {
        "redis-1": config(provider.url, redis_port=redis_server.port, litellm_settings=plain),
        "redis-2": config(provider.url, redis_port=redis_server.port, litellm_settings=plain),
        "host": config(provider.url, litellm_settings={**plain, **KEEP_ALIVE}),
        "memory": config(
            provider.url,
            models=[small],
            litellm_settings=plain,
            router_settings={"fallbacks": [{"small": ["steady"]}]},
            general_settings={"cancel_on_disconnect": True},
        ),
    }
    launches = {
        name: {"folder": folder(name), "config": one, "workers": 2 if name == "host" else 1}
        for name, one in configs.items()
    }
    with together(launches) as proxies:
        yield proxies


STORES = {"redis": ("redis-1", "redis-2"), "host": ("host",), "memory": ("memory",)}


@pytest.fixture(params=STORES)
def proxies(request: pytest.FixtureRequest, started: dict[str, Proxy]) -> Sequence[Proxy]:
    """The proxies of each store in turn."""
    return [started[name] for name in STORES[request.param]]


@pytest.fixture
def queue(proxies: Sequence[Proxy], provider: Provider) -> Callable[[str], Queue]:
    """Return a function that gives an organization of a limit, on each store in turn."""
    return partial(Queue, provider, proxies)


@pytest.fixture
def alone(started: dict[str, Proxy]) -> Proxy:
    """The proxy that counts in memory."""
    return started["memory"]


@pytest.fixture
def brief(alone: Proxy, provider: Provider) -> Queue:
    """An organization whose requests wait a second at most."""
    return Queue(provider, [alone], "brief")


@pytest.fixture
def pool(alone: Proxy, provider: Provider) -> Queue:
    """An organization whose requests wait for long."""
    return Queue(provider, [alone], "pool")


# In order


@pytest.mark.parametrize(
    ("where", "seconds"), [("redis", 1.0), ("host", 0.3), ("memory", 0.3)], ids=list(STORES)
)
async def test_five_at_once_are_answered_one_after_the_other(
    started: dict[str, Proxy], provider: Provider, where: str, seconds: float
) -> None:
    """At a limit of 1 they take as long as they do one by one, in order; one too many is told at once.

    The first is held until the others are there.
    """
    queue = Queue(provider, [started[name] for name in STORES[where]], "pool")
    first, model = await queue.hold(), queue.model(f"slow@{seconds}")
    others = [await queue.wait(model=model, at=place % len(queue.proxies)) for place in range(1, 5)]
    refused = await queue.send(model=model).answer
    assert (refused.status_code, refused.headers[REASON]) == (429, "queue_full")
    assert "4 are waiting, as many as may" in refused.text
    assert refused.elapsed.total_seconds() < AT_ONCE
    began = time.monotonic()
    queue.open_all([first])
    answers = await asyncio.gather(*(visit.answer for visit in [first, *others]))
    took = time.monotonic() - began
    assert [answer.status_code for answer in answers] == [200] * 5
    assert queue.first([*others, first]) == [first, *others]
    assert (queue.count(f"slow@{seconds}").peak, queue.count(f"slow@{seconds}").total) == (1, 4)
    assert 4 * seconds <= took < 4 * seconds + 2
    await queue.settled()


async def test_who_waits_behind_many_of_another_user_is_soon_served(queue: Callable[[str], Queue]) -> None:
    """Of users who wait, each has one turn in a round: a user's first request is among the next two."""
    crowd = queue("crowd")
    many, one = crowd.key(user_id="many"), crowd.key(user_id="one")
    visits = [await crowd.hold(many)]
    visits += [await crowd.wait(many, at=place % len(crowd.proxies)) for place in range(12)]
    single = await crowd.wait(one, at=len(crowd.proxies) - 1)
    order = await crowd.serve([*visits, single])
    assert order.index(single) <= 2
    assert [visit for visit in order if visit is not single] == visits
    assert crowd.count().peak == 1


@pytest.mark.parametrize("record", ["metadata", "team_metadata"])
async def test_what_is_urgent_waits_for_one_answer_at_most(
    queue: Callable[[str], Queue], record: str
) -> None:
    """A flood of a key, or a team, at priority 10 lets one of priority 0 go before."""
    crowd = queue("crowd")
    batch = crowd.key(team_id="batch", **{record: {"parallel_limits_priority": 10}})
    visits = [await crowd.hold(batch)] + [await crowd.wait(batch) for _ in range(5)]
    urgent = await crowd.wait(crowd.key(team_id="chat"), at=len(crowd.proxies) - 1)
    order = await crowd.serve([*visits, urgent])
    assert order == [visits[0], urgent, *visits[1:]]


async def test_a_slot_that_is_free_goes_to_who_waits_and_not_to_who_comes(
    queue: Callable[[str], Queue],
) -> None:
    """Requests that come while others wait are behind them, at whichever worker they come."""
    crowd = queue("crowd")
    first = await crowd.hold()
    second = await crowd.wait()
    late = [crowd.send(at=place % len(crowd.proxies)) for place in range(6)]
    await crowd.waits(7)
    order = await crowd.serve([first, second, *late])
    assert order[:2] == [first, second]
    assert crowd.count().peak == 1


# Who leaves


async def test_who_leaves_while_it_waits_gives_up_its_place(queue: Callable[[str], Queue]) -> None:
    """The place of a client that has left is free at once, and no provider is called for it."""
    crowd = queue("crowd")
    first, second, third = await crowd.hold(), await crowd.wait(), await crowd.wait()
    await second.leave()
    await crowd.waits(1, seconds=1)
    assert await crowd.serve([first, third]) == [first, third]
    await crowd.settled()
    assert crowd.provider.count(caller=second.name).total == 0


async def test_a_room_that_is_full_has_room_when_one_leaves(pool: Queue) -> None:
    """One who leaves is not among those that may wait any more."""
    first, waiting = await pool.hold(), [await pool.wait() for _ in range(4)]
    assert (await pool.send().answer).headers[REASON] == "queue_full"
    await waiting[1].leave()
    await pool.waits(3, seconds=1)
    last = await pool.wait()
    visits = [first, waiting[0], *waiting[2:], last]
    assert await pool.serve(visits) == visits


async def test_who_leaves_in_the_moment_of_its_turn_holds_nobody_up(queue: Callable[[str], Queue]) -> None:
    """A slot that is given to one who leaves goes to the next, whichever comes first."""
    crowd = queue("crowd")
    for _ in range(4):
        first, second, third = await crowd.hold(), await crowd.wait(), await crowd.wait()
        crowd.provider.open_gate(first.name)
        await second.leave()
        crowd.open_all([second])  # where it was called before the client left
        await crowd.provider.holds(1, caller=third.name, seconds=2)
        crowd.open_all([third])
        assert [(await visit.answer).status_code for visit in (first, third)] == [200, 200]
    assert crowd.count().peak == 1
    await crowd.settled()


async def test_who_has_waited_is_still_seen_to_leave(pool: Queue) -> None:
    """LiteLLM's cancel_on_disconnect ends the call of a request that had to wait for it, too."""
    first, second, third = await pool.hold(), await pool.wait(), await pool.wait()
    pool.open_all([first])
    await pool.provider.holds(1, caller=second.name)
    await second.leave()
    await pool.provider.holds(0, caller=second.name, seconds=2)
    await pool.provider.holds(1, caller=third.name, seconds=2)
    pool.open_all([third])
    assert (await third.answer).status_code == 200
    await pool.settled()


async def test_who_has_waited_may_leave_in_the_middle_of_a_stream(queue: Callable[[str], Queue]) -> None:
    """Its slot goes to the next."""
    crowd = queue("crowd")
    first, name = await crowd.hold(), uuid4().hex
    body = {"model": "openai/gated-half", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    async with crowd.proxies[-1].http(crowd.key()) as client:
        sending = client.build_request("POST", "/v1/chat/completions", json=body, headers={CALLER: name})
        streaming = asyncio.create_task(client.send(sending, stream=True))
        await crowd.waits(1)
        last = await crowd.wait()
        crowd.open_all([first])
        answer = await streaming
        async for line in answer.aiter_lines():
            if line.startswith("data:"):
                break
        assert crowd.provider.count(caller=name).in_flight == 1
        await answer.aclose()
    await crowd.provider.holds(1, caller=last.name, seconds=2)
    crowd.open_all([last])
    assert (await last.answer).status_code == 200
    await crowd.settled()


# What is answered


async def test_who_waits_too_long_is_told_so(brief: Queue) -> None:
    """After `max_seconds` the refusal says why, how long it took, and when to come again."""
    first = await brief.hold()
    refused = await brief.send().answer
    assert refused.status_code == 429
    assert refused.headers[REASON] == "wait_timeout"
    assert BRIEF_SECONDS * 1000 <= int(refused.headers[WAITED]) < BRIEF_SECONDS * 1000 + 700
    assert refused.headers["x-parallel-limit-name"] == "brief"
    assert int(refused.headers["retry-after"]) >= 1
    message = refused.json()["error"]["message"]
    assert "'brief' is full: 1 of 1 in flight" in message
    assert "after 1.0 s of waiting" in message
    assert await brief.serve([first]) == [first]
    await brief.settled()


async def test_who_has_waited_is_told_how_long(pool: Queue) -> None:
    """The header says for how long; without waiting there is none."""
    first, second = await pool.hold(), await pool.wait()
    since = time.monotonic()
    pool.open_all([first, second])
    ended = await second.answer
    assert WAITED not in (await first.answer).headers
    assert 0 < int(ended.headers[WAITED]) < (time.monotonic() - since + 5) * 1000
    assert ended.headers["x-ratelimit-pool-limit-max_parallel_requests"] == "1"


@pytest.mark.parametrize(
    ("said", "reason", "seconds"),
    [
        ("0.3", "wait_timeout", 0.3),
        ("0", "limit", 0),
        ("600", "wait_timeout", BRIEF_SECONDS),
        ("-1", "wait_timeout", BRIEF_SECONDS),
        ("nan", "wait_timeout", BRIEF_SECONDS),
        ("soon", "wait_timeout", BRIEF_SECONDS),
    ],
)
async def test_a_client_may_wait_less_and_never_longer(
    brief: Queue, said: str, reason: str, seconds: float
) -> None:
    """Its header shortens what the operator allows; what is longer, or no time at all, changes nothing."""
    first = await brief.hold()
    refused = await brief.send(headers={MAX_WAIT: said}).answer
    assert (refused.status_code, refused.headers[REASON]) == (429, reason)
    assert seconds <= refused.elapsed.total_seconds() < seconds + AT_ONCE
    assert await brief.serve([first]) == [first]


@pytest.mark.parametrize(
    ("said", "reason", "seconds"),
    [
        (0.3, "wait_timeout", 0.3),
        ("0.3", "wait_timeout", 0.3),
        (1.5, "wait_timeout", 1.5),
        (0, "limit", 0),
        ("soon", "wait_timeout", BRIEF_SECONDS),
    ],
)
async def test_a_keys_metadata_says_how_long_it_waits(
    brief: Queue, said: object, reason: str, seconds: float
) -> None:
    """In the place of `max_seconds`: shorter, longer, or not at all; what is no number changes nothing."""
    first = await brief.hold()
    refused = await brief.send(brief.key(metadata={"parallel_limits_wait_seconds": said})).answer
    assert (refused.status_code, refused.headers[REASON]) == (429, reason)
    assert seconds <= refused.elapsed.total_seconds() < seconds + AT_ONCE
    assert await brief.serve([first]) == [first]


async def test_a_teams_metadata_lets_requests_wait_for_a_limit_from_a_record(
    alone: Proxy, provider: Provider
) -> None:
    """Where the operator says nothing of waiting for such limits."""
    one = key(
        team_id=uuid4().hex,
        team_metadata={"parallel_limits_wait_seconds": 20},
        metadata={"max_parallel_requests": 1},
    )
    queue = Queue(provider, [alone])
    first, second = await queue.hold(one), queue.send(one)
    await until(lambda: waiting(alone, "api_key") == 1, 5, alone.status)
    assert await queue.serve([first, second]) == [first, second]


async def test_the_clients_own_time_out_ends_its_waiting(pool: Queue) -> None:
    """What OpenAI's SDK sends of its time-out bounds the wait; nobody is called for who has given up."""
    first = await pool.hold()
    impatient = pool.proxies[0].async_openai(pool.key(), timeout=0.5)
    asked: dict[str, Any] = {"model": pool.model("ok"), "messages": [{"role": "user", "content": "hi"}]}
    async with impatient as client:
        with pytest.raises((openai.APITimeoutError, openai.RateLimitError)):
            await client.chat.completions.create(**asked)
    await pool.waits(0, seconds=1)
    assert await pool.serve([first]) == [first]
    await pool.settled()
    assert pool.count("ok").total == 0


async def test_a_body_says_how_long_its_sender_waits(pool: Queue) -> None:
    """LiteLLM's `timeout` in the body is a time-out of the client's."""
    first = await pool.hold()
    refused = await pool.send(timeout=0.3).answer
    assert refused.headers[REASON] == "wait_timeout"
    assert await pool.serve([first]) == [first]


# On every route


@pytest.mark.parametrize(
    ("route", "streams"),
    [
        (route, streams)
        for route in ROUTES.values()
        for streams in (False, True)
        if route.streams or not streams
    ],
    ids=lambda value: value.name if isinstance(value, Route) else "stream" if value else "whole",
)
async def test_every_route_waits(pool: Queue, route: Route, streams: bool) -> None:  # noqa: FBT001
    """A request is answered as if it had not waited, whole or as a stream."""
    first = await pool.hold()
    async with pool.proxies[0].http(pool.key()) as client:
        asked = asyncio.create_task(client.post(route.path, json=route.request("ok", stream=streams)))
        await pool.waits(1)
        pool.open_all([first])
        answer = await asked
    assert answer.status_code == 200, answer.text
    assert int(answer.headers[WAITED]) > 0
    assert answer.headers["content-type"].startswith("text/event-stream") == streams
    await pool.settled()


async def test_the_sdks_wait_without_knowing(pool: Queue) -> None:
    """OpenAI's and Anthropic's clients are given their answers, streamed and whole."""
    proxy, said = pool.proxies[0], [{"role": "user", "content": "hi"}]
    words: dict[str, Any] = {"model": "openai/ok", "messages": said, "stream": True}
    text: dict[str, Any] = {"model": "anthropic/ok", "messages": said, "max_tokens": 9}
    first = await pool.hold()
    async with proxy.async_openai(pool.key()) as chat, proxy.async_anthropic(pool.key()) as claude:
        stream = asyncio.create_task(chat.chat.completions.create(**words))
        await pool.waits(1)
        whole = asyncio.create_task(claude.messages.create(**text))
        await pool.waits(2)
        pool.open_all([first])
        assert any([chunk.choices[0].delta.content async for chunk in await stream if chunk.choices])
        assert (await whole).content
    await pool.settled()


async def test_a_stream_is_kept_alive_while_it_waits(started: dict[str, Proxy], provider: Provider) -> None:
    """Where LiteLLM opens streams before they are answered, the client hears from it while it waits."""
    pool = Queue(provider, [started["host"]], "pool")
    first = await pool.hold()
    body = {"model": "openai/ok", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    async with (
        pool.proxies[0].http(pool.key()) as client,
        client.stream("POST", "/v1/chat/completions", json=body) as answer,
    ):
        lines = answer.aiter_lines()
        assert (await anext(lines)).startswith(":")
        await pool.waits(1)
        assert [await anext(lines) for _ in range(4)]
        assert pool.waiting() == 1
        pool.open_all([first])
        rest = [line async for line in lines]
    assert answer.status_code == 200
    assert "data: [DONE]" in rest
    await pool.settled()


async def test_a_stream_that_is_kept_alive_is_told_that_it_waited_in_vain(
    started: dict[str, Proxy], provider: Provider
) -> None:
    """An event says so, with the code 429."""
    brief = Queue(provider, [started["host"]], "brief")
    first = await brief.hold()
    answer = await brief.send(model="openai/ok", stream=True).answer
    events = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: {")]
    error = json.loads(events[0])["error"]
    assert str(error["code"]) == "429"
    assert "after 1.0 s of waiting" in error["message"]
    assert await brief.serve([first]) == [first]
    await brief.settled()


@needs(REALTIME_WITHOUT_TLS)
async def test_a_websocket_waits(pool: Queue) -> None:
    """A session begins when its turn has come; one that is closed before gives up its place."""
    first = await pool.hold()
    async with websocket(pool, pool.key()) as session:
        await pool.waits(1)
        async with websocket(pool, pool.key()):
            await pool.waits(2)
        await pool.waits(1, seconds=2)
        pool.open_all([first])
        assert json.loads(await session.recv())["type"] == "session.created"
    await pool.settled()


@needs(REALTIME_WITHOUT_TLS)
async def test_a_websocket_that_has_waited_in_vain_is_closed(brief: Queue) -> None:
    """An event says so, and the code that it is worth another try."""
    first = await brief.hold()
    async with websocket(brief, brief.key()) as session:
        event = json.loads(await session.recv())
        assert "after 1.0 s of waiting" in event["error"]["message"]
        with pytest.raises(ConnectionClosed):
            await session.recv()
    assert session.close_code == TRY_AGAIN_LATER
    assert await brief.serve([first]) == [first]


def websocket(queue: Queue, one: str) -> connect:
    """Return a connection for a realtime session."""
    proxy = queue.proxies[0]
    url = f"{proxy.url.replace('http', 'ws')}/v1/realtime?model=openai/ok"
    headers = {"authorization": f"Bearer {one}", CALLER: caller(one)}
    direct = socket.create_connection((HOST, proxy.port))  # past whatever the environment says of proxies
    return connect(url, additional_headers=headers, sock=direct)


# Beside what else LiteLLM does


async def test_one_who_waits_for_two_models_holds_neither(alone: Proxy, provider: Provider) -> None:
    """A request for several models leaves those that are free to others while it waits for another."""
    names = [f"openai/gated:{uuid4().hex}" for _ in "ab"]
    numbers = dict.fromkeys(names, 1)
    one = key(metadata={"model_max_parallel_requests": numbers, "parallel_limits_wait_seconds": 20})
    queue = Queue(provider, [alone])
    first = await queue.hold(one, model=names[0])
    both = queue.send(one, model=",".join(names))
    await until(lambda: waiting(alone, "model_per_key") == 1, 5, alone.status)
    second = await queue.hold(one, model=names[1])
    assert not both.answer.done()
    provider.open_gate(both.name)
    queue.open_all([first])
    assert (await first.answer).status_code == 200
    assert provider.count(caller=both.name).total == 0
    queue.open_all([second])
    assert (await both.answer).status_code == 200
    assert provider.count(caller=both.name).total == 2
    await alone.settled()


@needs(FALLBACKS)
async def test_a_model_that_may_be_waited_for_falls_back_after_the_wait(
    alone: Proxy, provider: Provider
) -> None:
    """Who may wait for a full model does, and is served by its fallback only when it has waited in vain."""
    queue = Queue(provider, [alone])
    first = await queue.hold(key(), model="small")
    now = await queue.send(key(), model="small").answer
    assert (now.status_code, now.headers["x-litellm-model-group"]) == (200, "steady")
    patient = key(metadata={"parallel_limits_wait_seconds": 1})
    late = await queue.send(patient, model="small").answer
    assert late.status_code == 200
    assert late.elapsed.total_seconds() >= 1
    assert provider.count(caller=first.name).in_flight == 1
    queue.open_all([first])
    await first.answer
    await alone.settled()


def waiting(proxy: Proxy, limit: str) -> int:
    """Return how many wait for the limit of this name."""
    return sum(scope["waiting"] for scope in proxy.status()["scopes"] if scope["name"] == limit)


# What changes


async def test_a_limit_that_changes_is_met_by_who_waits_already(alone: Proxy, provider: Provider) -> None:
    """A raised number admits who waits; by a lowered one it waits until enough have ended."""
    raised, lowered = (Queue(provider, [alone], name) for name in ("raised", "lowered"))
    held = [await lowered.hold() for _ in "ab"]
    last = await lowered.wait()
    held.append(await raised.hold())
    canary = await raised.wait()  # comes after the other: once it has looked, the other has
    change(alone, {"limits": [*LIMITS[:3], entry("raised", 2), entry("lowered", 1)]})
    await provider.holds(1, caller=canary.name, seconds=13)
    assert raised.count().peak == 2
    lowered.open_all(held[:1])
    await held[0].answer
    await until(lambda: lowered.in_flight() == 1, 5, lowered.scopes)
    assert lowered.waiting() == 1
    lowered.open_all(held[1:2])
    await provider.holds(1, caller=last.name)
    queue_ends = [*held, canary, last]
    lowered.open_all(queue_ends)
    assert {(await visit.answer).status_code for visit in queue_ends} == {200}
    change(alone, SECTION)


async def test_a_keys_number_that_changes_is_met_by_who_waits_already(
    alone: Proxy, provider: Provider
) -> None:
    """What LiteLLM has learned of the key meanwhile holds for those of its requests that wait."""
    numbers = {"max_parallel_requests": 1, "parallel_limits_wait_seconds": 20}
    one, queue = key(metadata=numbers), Queue(provider, [alone])
    first, second = await queue.hold(one), queue.send(one)
    await until(lambda: waiting(alone, "api_key") == 1, 5, alone.status)
    known = {
        token(one): (
            "UserAPIKeyAuth",
            {"token": token(one), "metadata": {**numbers, "max_parallel_requests": 2}},
        )
    }
    assert (await queue.send(key(rows=known), model="openai/ok").answer).status_code == 200
    await provider.holds(1, caller=second.name, seconds=13)
    queue.open_all([first, second])
    assert [(await visit.answer).status_code for visit in (first, second)] == [200, 200]
    await alone.settled()


def token(one: str) -> str:
    """Return LiteLLM's hash of a key."""
    return hashlib.sha256(one.encode()).hexdigest()


def change(proxy: Proxy, section: dict[str, Any]) -> None:
    """Put another section into the proxy's YAML, and let LiteLLM read it."""
    path = proxy.server.log.parent / "config.yaml"
    document = yaml.safe_load(path.read_text())
    document["litellm_settings"]["parallel_limits"] = section
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    headers = {"authorization": f"Bearer {admin_key()}"}
    httpx.get(proxy.url + READS_ITS_CONFIG, headers=headers, timeout=30, **PLAIN).raise_for_status()
