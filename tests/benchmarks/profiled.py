"""`python -m tests.benchmarks.profiled`: where the time of a request goes, part by part.

Calls are counted, and are the same in each run; the profiler makes each take several times as long.
"""

from __future__ import annotations

import asyncio
import cProfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from pstats import Stats
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from tests.benchmarks.child import Load, measure
from tests.benchmarks.inside import config, inside
from tests.benchmarks.ways import Way, ours, theirs
from tests.rig.redis_server import RedisServer

LOAD = Load(50, 2_000)
OURS = "litellm_parallel_limits"
MOST = 25
"""Parts that are told, those that take longest."""


@dataclass
class Part:
    """A file of ours, or all else of one kind: its calls, and the seconds in it."""

    calls: int = 0
    seconds: float = 0.0


async def profiled(folder: Path, redis_port: int | None, *, limiter: str) -> Stats:
    """Return the profile of the requests, limited by ours or LiteLLM's, after as many without one."""
    store = "memory" if redis_port is None else "redis"
    async with inside(config(store=store, redis_port=redis_port), folder) as proxy:
        way: Way = {"ours": ours, "LiteLLM": theirs}[limiter](proxy)
        await measure(way, LOAD)
        requests = cProfile.Profile()
        with requests:
            await measure(way, LOAD)
        return Stats(requests)


def parts(stats: Stats) -> dict[str, Part]:
    """Return what the requests took, by file of ours and by package."""
    found: dict[str, Part] = {}
    told: Any = stats.stats  # type: ignore[attr-defined]  # not in typeshed's Stats
    for (file, _, _), (_, calls, seconds, _, _) in told.items():
        part = found.setdefault(_part(file), Part())
        part.calls += calls
        part.seconds += seconds
    return found


def _part(file: str) -> str:
    path = Path(file)
    if OURS in path.parts:
        return "/".join(path.parts[path.parts.index(OURS) :])
    if "site-packages" in path.parts:
        return path.parts[path.parts.index("site-packages") + 1]
    if "tests" in path.parts:
        return "the benchmark"
    return path.parent.name if path.suffix == ".py" and path.parent.name == "asyncio" else "Python and C"


def _table(found: Sequence[tuple[str, Part]]) -> Table:
    table = Table("part", "calls a request", "µs a request, under the profiler")
    for name, part in found:
        table.add_row(name, f"{part.calls / LOAD.requests:.1f}", f"{part.seconds / LOAD.requests * 1e6:.1f}")
    return table


@click.command()
@click.option("--store", type=click.Choice(["memory", "redis"]), default="redis", show_default=True)
@click.option("--limiter", type=click.Choice(["ours", "LiteLLM"]), default="ours", show_default=True)
def main(*, store: str, limiter: str) -> None:
    """Profile, and print what takes longest."""
    with tempfile.TemporaryDirectory() as name:
        redis = RedisServer.start(Path(name)) if store == "redis" else None
        stats = asyncio.run(profiled(Path(name), None if redis is None else redis.port, limiter=limiter))
        if redis is not None:
            redis.stop()
    found = sorted(parts(stats).items(), key=lambda part: -part[1].seconds)
    Console(width=120).print(_table(found[:MOST]))


if __name__ == "__main__":
    main()
