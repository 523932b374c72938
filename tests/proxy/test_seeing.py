"""What is told of the limits, over workers and proxies: metrics, status and history."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from functools import partial

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from litellm_parallel_limits.history import STEP_SECONDS
from tests.conftest import StartProxy
from tests.rig.burst import Ask
from tests.rig.config import CALLBACKS, deployment
from tests.rig.identities import admin_key, caller, key
from tests.rig.litellm_version import LOG_FIELDS, needs
from tests.rig.polling import until
from tests.rig.provider import Provider
from tests.rig.proxy import PLAIN, Proxy
from tests.rig.redis_server import RedisServer

pytestmark = pytest.mark.proxy

POOL = "measured-pool"
CAPACITY = 6


@pytest.fixture(scope="module")
def proxies(start_proxy: StartProxy, provider: Provider, redis_server: RedisServer) -> Sequence[Proxy]:
    """Two proxies on one Redis, of two workers and of one, of which LiteLLM serves metrics."""
    limit = {"name": POOL, "models": ["measured"], "by": [], "max_parallel_requests": CAPACITY}
    return [
        start_proxy(
            workers=workers,
            redis_port=redis_server.port,
            callbacks=[*CALLBACKS, "prometheus", "otel"],
            models=[deployment("measured", "openai/gated:measured", provider.url)],
            litellm_settings={"json_logs": True, "parallel_limits": {"limits": [limit]}},
        )
        for workers in (2, 1)
    ]


def scraped(proxies: Sequence[Proxy], name: str, **labels: str) -> float:
    """Return the sum of a metric of ours over these proxies."""
    return sum(
        sample.value
        for proxy in proxies
        for family in text_string_to_metric_families(scrape(proxy))
        for sample in family.samples
        if sample.name == f"litellm_parallel_limits_{name}" and labels.items() <= sample.labels.items()
    )


def scrape(proxy: Proxy) -> str:
    """Return what Prometheus reads."""
    headers = {"authorization": f"Bearer {admin_key()}"}
    return httpx.get(f"{proxy.url}/metrics/", headers=headers, timeout=20, **PLAIN).raise_for_status().text


async def test_a_scrape_tells_what_the_provider_holds(proxies: Sequence[Proxy], provider: Provider) -> None:
    """Whichever worker answers, the sum over the proxies is what is in flight, at each moment of a load."""

    async def tells(in_flight: int) -> None:
        assert provider.count(model="gated:measured").in_flight == in_flight
        await until(
            lambda: scraped(proxies, "in_flight", limit=POOL) == in_flight, 10, lambda: scrape(proxies[0])
        )

    def are_done(number: int) -> bool:
        return sum(task.done() for task in sent) == number

    keys = [key() for _ in range(2 * CAPACITY)]
    sent = [
        asyncio.create_task(Ask(one, "measured").send(proxies[number % 2])) for number, one in enumerate(keys)
    ]
    await until(partial(are_done, CAPACITY), 20, lambda: sent)
    await provider.holds(CAPACITY, model="gated:measured")
    await tells(CAPACITY)
    held = [one for one, task in zip(keys, sent, strict=True) if not task.done()]
    for left, one in reversed(list(enumerate(held))):
        provider.open_gate(caller(one))
        await until(partial(are_done, len(sent) - left), 20, lambda: sent)
        await tells(left)
    assert {(await task).status_code for task in sent} == {200, 429}
    assert scraped(proxies, "admissions_total", limit=POOL, outcome="admitted") == CAPACITY
    assert scraped(proxies, "admissions_total", limit=POOL, outcome="refused") == CAPACITY
    assert scraped(proxies, "held_seconds_count", limit=POOL) == CAPACITY
    assert scraped(proxies, "store_seconds_count", operation="exchange") > 0


async def test_every_worker_tells_what_all_hold(proxies: Sequence[Proxy], provider: Provider) -> None:
    """Status and history are of all workers and proxies, whichever of them is asked."""
    keys, before = [key() for _ in range(CAPACITY + 2)], refused_lately(proxies[1])
    sent = [
        asyncio.create_task(Ask(one, "measured").send(proxies[number % 2])) for number, one in enumerate(keys)
    ]
    await provider.holds(CAPACITY, model="gated:measured")
    await until(lambda: sum(task.done() for task in sent) == 2, 20, lambda: sent)
    for proxy in [*proxies] * 3:  # one of two workers answers
        (pool,) = [scope for scope in proxy.status()["scopes"] if scope["name"] == POOL]
        assert pool["in_flight"] == len(pool["holders"]) == CAPACITY
        assert pool["utilization"] == 1
        assert len({holder["worker"] for holder in pool["holders"]}) > 1
    await until(lambda: refused_lately(proxies[1]) >= before + 2, 2 * STEP_SECONDS, proxies[1].status)

    def tells_of_the_load() -> bool:
        # A worker that is held up misses a second now and then.
        return all(any(abs(mean - CAPACITY) <= 1 for mean in past(proxy)) for proxy in proxies)

    await until(tells_of_the_load, 4 * STEP_SECONDS, lambda: past(proxies[0]))
    for one in keys:
        provider.open_gate(caller(one))
    assert {answer.status_code for answer in await asyncio.gather(*sent)} == {200, 429}
    await proxies[0].settled()


def refused_lately(proxy: Proxy) -> int:
    """Return how many the pool has refused within a minute."""
    number: int = proxy.status()["refused_lately"]
    return number


def past(proxy: Proxy) -> list[float]:
    """Return what was in flight in the pool in the last quarter of an hour."""
    headers = {"authorization": f"Bearer {admin_key()}"}
    answer = httpx.get(f"{proxy.url}/parallel_limits/history", headers=headers, timeout=20, **PLAIN)
    limits = answer.raise_for_status().json()["limits"]
    in_flight: list[float] = limits[POOL]["in_flight"] if POOL in limits else []
    return in_flight


async def test_no_metric_names_a_caller(proxies: Sequence[Proxy], provider: Provider) -> None:
    """No key, no user and no team is in any series of ours."""
    one = key(user_id="<script>", team_id="team-secret", metadata={"max_parallel_requests": 1})
    provider.open_gate(caller(one))
    assert (await Ask(one, "measured").send(proxies[1])).status_code == 200
    ours = [line for line in scrape(proxies[1]).splitlines() if line.startswith("litellm_parallel_limits_")]
    assert ours
    assert not [line for line in ours if "script" in line or "secret" in line or one in line]


async def refuse_one(proxy: Proxy, provider: Provider) -> None:
    """Have one request refused, by a full pool."""
    keys = [key() for _ in range(CAPACITY)]
    sent = [asyncio.create_task(Ask(one, "measured").send(proxy)) for one in keys]
    await provider.holds(CAPACITY, model="gated:measured")
    assert (await Ask(key(), "measured").send(proxy)).status_code == 429
    for one in keys:
        provider.open_gate(caller(one))
    assert {answer.status_code for answer in await asyncio.gather(*sent)} == {200}


@needs(LOG_FIELDS)
async def test_the_log_is_structured_where_litellms_is(proxies: Sequence[Proxy], provider: Provider) -> None:
    """In LiteLLM's JSON mode a line of ours is an object with its facts as fields."""
    await refuse_one(proxies[1], provider)
    lines = [json.loads(text) for text in proxies[1].log().splitlines() if '"refuses"' in text]
    refuses = next(line for line in lines if line.get("event") == "refuses")
    assert refuses["limit"] == POOL
    assert (refuses["in_flight"], refuses["capacity"]) == (CAPACITY, CAPACITY)
    assert refuses["level"] == "WARNING"


async def test_a_trace_tells_what_became_of_a_request(proxies: Sequence[Proxy], provider: Provider) -> None:
    """LiteLLM's span of a request has the limits it met, and the one that refused it."""
    await refuse_one(proxies[1], provider)
    told = {"outcome": "limit", "limit": POOL}
    wanted = [f'"litellm_parallel_limits.{name}": "{value}"' for name, value in told.items()]
    wanted += ['"litellm_parallel_limits.outcome": "admitted"', '"litellm_parallel_limits.limits": [']
    await until(lambda: all(text in proxies[1].log() for text in wanted), 20, proxies[1].log)


async def test_a_client_cannot_break_its_trace(proxies: Sequence[Proxy], provider: Provider) -> None:
    """What a client says is its span is none, on routes whose metadata LiteLLM's router reads, too."""
    one = key()
    provider.open_gate(caller(one))
    body = {"model": "measured", "input": "hi", "metadata": {"litellm_parent_otel_span": "x"}}
    async with proxies[1].http(one) as client:
        assert (await client.post("/v1/responses", json=body)).status_code == 200
