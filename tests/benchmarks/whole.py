"""`python -m tests.benchmarks.whole`: a whole LiteLLM proxy with the plugin, and beside it one without.

Both run at the same time on one Redis, with LiteLLM's mock model, and are asked in turns, for requests that
meet four limits, by 50 clients that keep their connections. The proxy's CPU is what the kernel says.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import click
from rich.console import Console
from rich.table import Table

from tests.benchmarks.figures import quantile, spread
from tests.benchmarks.inside import MODEL, PLENTY
from tests.benchmarks.ways import FOUR
from tests.rig.config import PLUGIN, config
from tests.rig.identities import key
from tests.rig.proxy import Proxy
from tests.rig.redis_server import RedisServer

CLIENTS = 50
REQUESTS = 1_500
"""In a block: some seconds."""

TICKS = os.sysconf("SC_CLK_TCK")

WITH, WITHOUT = "with the plugin", "without"
CALLBACKS: Mapping[str, Sequence[str]] = {WITH: [PLUGIN], WITHOUT: []}


@dataclass(frozen=True)
class Block:
    """Requests a second, the milliseconds in which 99 of 100 are answered, and those of CPU for one."""

    rate: float
    p99: float
    cpu: float


async def block(proxy: Proxy, api_key: str) -> Block:
    """Send the requests of a block."""
    took: list[float] = []
    left = iter(range(REQUESTS))
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello?"}]}
    headers = {"authorization": f"Bearer {api_key}"}
    connector = aiohttp.TCPConnector(limit=CLIENTS)
    before, began = _cpu(proxy), time.perf_counter()
    async with aiohttp.ClientSession(proxy.url, headers=headers, connector=connector) as session:

        async def client() -> None:
            for _ in left:
                sent = time.perf_counter()
                async with session.post("/v1/chat/completions", json=body) as answer:
                    assert answer.status == 200, await answer.text()
                    await answer.read()
                took.append(time.perf_counter() - sent)

        await asyncio.gather(*(client() for _ in range(CLIENTS)))
    seconds = time.perf_counter() - began
    cpu = (_cpu(proxy) - before) / REQUESTS
    return Block(REQUESTS / seconds, quantile(took, 0.99) * 1000, cpu * 1000)


def _cpu(proxy: Proxy) -> float:
    """Return how many seconds of CPU a proxy has used."""
    fields = Path(f"/proc/{proxy.server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _start(folder: Path, redis: RedisServer) -> dict[str, Proxy]:
    mock = {"model": f"openai/{MODEL}", "api_key": "unused", "mock_response": "Hello."}
    pool = {"name": "pool", "max_parallel_requests": PLENTY, "models": [MODEL]}
    started = {}
    for way, callbacks in CALLBACKS.items():
        told: dict[str, Any] = config(
            "http://nowhere",
            redis_port=redis.port,
            callbacks=callbacks,
            models=[{"model_name": MODEL, "litellm_params": mock}],
            litellm_settings={"parallel_limits": {"limits": [pool]}} if callbacks else {},
        )
        place = folder / way.replace(" ", "-")
        place.mkdir()
        started[way] = Proxy.start(place, told)
    return started


@click.command()
@click.option("--rounds", default=7, show_default=True, help="How often each proxy is asked.")
def main(*, rounds: int) -> None:
    """Measure, and print the table."""
    found: dict[str, list[Block]] = {way: [] for way in CALLBACKS}
    with tempfile.TemporaryDirectory() as name:
        redis = RedisServer.start(Path(name))
        proxies = _start(Path(name), redis)
        api_key = key(**FOUR)
        try:
            for number in range(rounds + 1):
                for way, proxy in proxies.items():
                    measured = asyncio.run(block(proxy, api_key))
                    if number:  # what a proxy does only once is done after the first
                        found[way].append(measured)
        finally:
            for proxy in proxies.values():
                proxy.stop()
            redis.stop()
    Console(width=120).print(_table(found))


def _table(found: Mapping[str, Sequence[Block]]) -> Table:
    table = Table("", *CALLBACKS, "ratio")
    rows: Mapping[str, Callable[[Block], float]] = {
        "requests a second": lambda one: one.rate,
        "p99 ms": lambda one: one.p99,
        "CPU of the proxy, ms a request": lambda one: one.cpu,
    }
    for name, value in rows.items():
        ours, theirs = ([value(one) for one in found[way]] for way in (WITH, WITHOUT))
        ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
        table.add_row(name, spread(ours), spread(theirs), f"{spread(ratios, 3)}")
    return table


if __name__ == "__main__":
    main()
