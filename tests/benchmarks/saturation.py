"""`python -m tests.benchmarks.saturation`: requests that wait their turn, beside some that are sent again.

Four users send 200 requests at once, most of them from one user, where 8 may be in flight. Once they wait
in the proxy; once they are refused, and OpenAI's client sends them again until they are answered; once
nothing limits them, which is how long LiteLLM and the clients take for so many. All through the same
LiteLLM proxy with Redis, in turns, in several rounds.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import httpx
from openai import AsyncOpenAI
from rich.console import Console
from rich.table import Table

from tests.benchmarks.figures import quantile, spread
from tests.rig.config import config
from tests.rig.identities import key
from tests.rig.provider import Provider
from tests.rig.proxy import Proxy
from tests.rig.redis_server import RedisServer

ROUNDS = 3
CAPACITY = 8
SECONDS = 0.25
"""That the provider takes for an answer."""

NOISY = "noisy"
LOAD: Mapping[str, int] = {NOISY: 140, "ann": 20, "ben": 20, "cleo": 20}
TRIES = 1000
"""Enough for every request."""

PATIENCE = 120.0
LIMIT = {"max_parallel_requests": CAPACITY}
WAITING = {**LIMIT, "name": "waiting", "models": ["*:waiting"]} | {
    "wait": {"max_seconds": PATIENCE, "max_waiting": 500, "fair_by": "user"}
}
REFUSING = {**LIMIT, "name": "refusing", "models": ["*:refusing"]}
WAYS = ("waiting", "refusing", "free")


@dataclass(frozen=True)
class Measured:
    """What it took until all were answered.

    `answered` are the seconds to each user's answers, `sent` the requests that the proxy was sent.
    """

    answered: Mapping[str, Sequence[float]]
    sent: int
    peak: int

    @property
    def seconds(self) -> float:
        """Until the last answer."""
        return max(self.done.values())

    @property
    def done(self) -> Mapping[str, float]:
        """Until the last answer of each user."""
        return {user: max(times) for user, times in self.answered.items()}

    @property
    def quiet(self) -> Sequence[float]:
        """Until the last answer of each user but the noisy one."""
        return [seconds for user, seconds in self.done.items() if user != NOISY]

    @property
    def all(self) -> Sequence[float]:
        """Until each answer."""
        return [seconds for times in self.answered.values() for seconds in times]


async def measure(proxy: Proxy, provider: Provider, way: str) -> Measured:
    """Send the load, and return when all is answered."""
    sent: list[httpx.Request] = []
    provider.reset()

    async def count(request: httpx.Request) -> None:
        sent.append(request)

    async with AsyncExitStack() as stack:
        clients = {}
        for user in LOAD:
            http = httpx.AsyncClient(
                event_hooks={"request": [count]}, trust_env=False, limits=httpx.Limits(max_connections=None)
            )
            client = proxy.async_openai(
                key(user_id=user), max_retries=TRIES, timeout=2 * PATIENCE, http_client=http
            )
            clients[user] = await stack.enter_async_context(client)
        began = time.monotonic()
        took = await asyncio.gather(
            *(_all(clients[user], way, number, began) for user, number in LOAD.items())
        )
    return Measured(dict(zip(LOAD, took, strict=True)), len(sent), provider.count().peak)


async def _all(client: AsyncOpenAI, way: str, number: int, began: float) -> Sequence[float]:
    return await asyncio.gather(*(_one(client, way, began) for _ in range(number)))


async def _one(client: AsyncOpenAI, way: str, began: float) -> float:
    await client.chat.completions.create(
        model=f"openai/slow@{SECONDS}:{way}", messages=[{"role": "user", "content": "hello"}]
    )
    return time.monotonic() - began


ROWS: Mapping[str, Callable[[Measured], float]] = {
    "seconds until all are answered": lambda one: one.seconds,
    "until an answer, p50": lambda one: median(one.all),
    "until an answer, p99": lambda one: quantile(one.all, 0.99),
    "until the noisy user has all": lambda one: one.done[NOISY],
    "until a quiet user has all, median": lambda one: median(one.quiet),
    "until a quiet user has all, worst": lambda one: max(one.quiet),
    "between first and last quiet user": lambda one: max(one.quiet) - min(one.quiet),
    "HTTP requests to the proxy": lambda one: one.sent,
    "in flight at the provider, at most": lambda one: one.peak,
}


def main() -> None:
    """Measure, and print the table."""
    found: dict[str, list[Measured]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        places = {name: Path(folder) / name for name in ("redis", "provider", "proxy")}
        for place in places.values():
            place.mkdir()
        redis = RedisServer.start(places["redis"])
        provider = Provider.start(places["provider"])
        settings = {"parallel_limits": {"limits": [WAITING, REFUSING]}}
        told = config(provider.url, redis_port=redis.port, litellm_settings=settings)
        proxy = Proxy.start(places["proxy"], told)
        try:
            asyncio.run(_rounds(proxy, provider, found))
        finally:
            for server in (proxy, provider, redis):
                server.stop()
    Console(width=120).print(_table(found))


async def _rounds(proxy: Proxy, provider: Provider, found: Mapping[str, list[Measured]]) -> None:
    for way in WAYS:
        await measure(proxy, provider, way)  # what a proxy does only once is done after that
    for _ in range(ROUNDS):
        for way, rounds in found.items():
            rounds.append(await measure(proxy, provider, way))


def _table(found: Mapping[str, Sequence[Measured]]) -> Table:
    table = Table("", "requests wait", "refused, sent again", "no limit", "sent again to wait")
    for name, value in ROWS.items():
        ours, theirs, free = ([value(one) for one in found[way]] for way in WAYS)
        table.add_row(
            name, spread(ours), spread(theirs), spread(free), f"{median(theirs) / median(ours):.1f}"
        )
    return table


if __name__ == "__main__":
    main()
