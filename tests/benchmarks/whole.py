"""`python -m tests.benchmarks.whole`: a whole LiteLLM proxy with the plugin, and beside it those without.

One has no callback, one a callback that does nothing: LiteLLM does something for that, too. All run at the
same time on one Redis, with LiteLLM's mock model, and are asked in turns, for requests that meet four limits,
by 50 clients that keep their connections. The proxies have the first core, all else has the others. The
proxy's CPU is what the kernel says.
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
REQUESTS = 300
"""In a block: a few seconds, so that a machine that slows down does so for all ways."""

TOGETHER = 5
"""Blocks of which the slowest requests are looked at together: one has too few."""

TICKS = os.sysconf("SC_CLK_TCK")

WITH, IDLE, WITHOUT = "with the plugin", "with an idle callback", "without"
CALLBACKS: Mapping[str, Sequence[str]] = {WITH: [PLUGIN], IDLE: ["rig_callbacks.idle"], WITHOUT: []}


@dataclass(frozen=True)
class Block:
    """Requests a second, milliseconds of CPU for one, and the seconds in which each was answered."""

    rate: float
    cpu: float
    took: Sequence[float]


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
    return Block(REQUESTS / seconds, cpu * 1000, took)


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
            litellm_settings={"parallel_limits": {"limits": [pool]}} if way == WITH else {},
        )
        place = folder / way.replace(" ", "-")
        place.mkdir()
        started[way] = Proxy.start(place, told)
    return started


@click.command()
@click.option("--rounds", default=40, show_default=True, help="How often each proxy is asked.")
def main(*, rounds: int) -> None:
    """Measure, and print the table."""
    found: dict[str, list[Block]] = {way: [] for way in CALLBACKS}
    with tempfile.TemporaryDirectory() as name:
        all_else = set(range(1, os.cpu_count() or 1)) or {0}
        os.sched_setaffinity(0, all_else)  # what is started has the same
        redis = RedisServer.start(Path(name))
        os.sched_setaffinity(0, {0})
        proxies = _start(Path(name), redis)
        os.sched_setaffinity(0, all_else)
        api_key = key(**FOUR)
        try:
            for number in range(rounds + 1):
                in_order = list(proxies.items())[
                    :: 1 if number % 2 else -1
                ]  # who comes first has no advantage
                for way, proxy in in_order:
                    measured = asyncio.run(block(proxy, api_key))
                    if number:  # what a proxy does only once is done after the first
                        found[way].append(measured)
        finally:
            for proxy in proxies.values():
                proxy.stop()
            redis.stop()
    Console(width=120).print(_table(found))


def _table(found: Mapping[str, Sequence[Block]]) -> Table:
    table = Table("", *CALLBACKS, *(f"with the plugin / {way}" for way in (IDLE, WITHOUT)))
    rows: Mapping[str, Callable[[Sequence[Block]], Sequence[float]]] = {
        "requests a second": lambda blocks: [one.rate for one in blocks],
        "CPU of the proxy, ms a request": lambda blocks: [one.cpu for one in blocks],
        "p99 ms": _p99,
    }
    for name, values in rows.items():
        ours, *others = (values(found[way]) for way in CALLBACKS)
        ratios = ([mine / other for mine, other in zip(ours, theirs, strict=True)] for theirs in others)
        table.add_row(name, *map(spread, (ours, *others)), *(spread(ratio, 3) for ratio in ratios))
    return table


def _p99(blocks: Sequence[Block]) -> Sequence[float]:
    some = (blocks[start : start + TOGETHER] for start in range(0, len(blocks), TOGETHER))
    return [quantile([took for one in group for took in one.took], 0.99) * 1000 for group in some]


if __name__ == "__main__":
    main()
