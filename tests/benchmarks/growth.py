"""`python -m tests.benchmarks.growth`: how the cost of a request grows, in time and in memory.

Redis itself measures: its slow log tells how long each call kept it busy. A request is two calls, one that
takes its slots and one that gives them back, with nobody else at work, so that requests share nothing.
How much they share that come at a time is measured besides, and for how long one call keeps Redis busy.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import TypeVar

import click
import uvloop
from rich.console import Console
from rich.table import Table

from litellm_parallel_limits.limits import Patience
from litellm_parallel_limits.stores.exchange import Ask
from tests.benchmarks.bench import (
    IN_FLIGHT,
    IN_SCOPE,
    LIVES,
    NAMES,
    WORKER,
    Bench,
    Measuring,
    Times,
    crowd,
    limit,
    waiter,
)
from tests.benchmarks.blocking import blocking
from tests.benchmarks.concurrency import Shared, concurrency, worker_memory
from tests.benchmarks.figures import spread
from tests.benchmarks.plots import Panel, draw
from tests.rig.redis_server import RedisServer

ROUNDS = 5
IN_FLIGHT_AT_FIRST = 100
"""Of those that others wait for."""

_T = TypeVar("_T")
Rounds = Mapping[int, Sequence[_T]]
"""What was found at each step, in each round."""

Measure = Callable[[Bench, int], Awaitable[Times]]


async def _limits(bench: Bench, number: int) -> Times:
    return await bench.requests(*(limit(name) for name in NAMES[:number]))


async def _in_flight(bench: Bench, number: int) -> Times:
    await bench.fill(IN_FLIGHT.format(LIVES), number)
    return await bench.requests(limit())


async def _scopes(bench: Bench, number: int) -> Times:
    await bench.fill(IN_SCOPE, number)
    return await bench.requests(limit(of="somebody"))


async def _workers(bench: Bench, number: int) -> Times:
    await bench.fill(WORKER, number)
    return await bench.requests(limit())


async def _waiting(bench: Bench, number: int) -> Times:
    """Let `number` wait, users by turns, while a hundred are in flight; each that ends gives a turn.

    For each that goes on another one comes to wait, so that always as many do.
    """
    held = await crowd(bench, IN_FLIGHT_AT_FIRST, number)
    async with Measuring(bench.client) as busy:
        for place, lease in enumerate(held):
            await bench.exchange(releases=[Ask(lease)])
            newcomer = waiter(bench, IN_FLIGHT_AT_FIRST, number + place)
            await bench.exchange(asks=[Ask(newcomer, Patience())])
    freed = busy[::2]
    return Times(median(freed), max(freed))


@dataclass(frozen=True)
class Dimension:
    """What grows, in these steps, in which order the time may grow with it, and `what` the time is of."""

    name: str
    measure: Measure
    steps: Sequence[int]
    order: str
    what: str = "µs of Redis a request"

    @property
    def title(self) -> str:
        """What a plot is called."""
        return f"{self.name} (may grow as {self.order})"


DIMENSIONS = (
    Dimension("limits", _limits, (1, 2, 4, 8, 16), "n"),
    Dimension("in flight in the scope", _in_flight, (10, 100, 1_000, 10_000, 100_000), "log n"),
    Dimension("live scopes", _scopes, (10, 1_000, 100_000, 1_000_000), "log n"),
    Dimension("workers", _workers, (1, 4, 16, 64), "log n"),
    Dimension("waiting", _waiting, (1, 10, 100, 1_000, 10_000), "log n", "µs of Redis a slot freed"),
)


COLUMNS: Mapping[str, tuple[Callable[[Shared], float], int]] = {
    "µs of Redis in scripts": (lambda one: one.scripts, 0),
    "µs of Redis' CPU": (lambda one: one.redis, 0),
    "calls": (lambda one: one.calls, 2),
    "µs of the worker's CPU": (lambda one: one.worker, 0),
    "p99 until admitted, ms": (lambda one: one.waited, 1),
    "admissions a second that a core of Redis bears, by scripts": (lambda one: 1e6 / one.scripts, 0),
    "by all its CPU": (lambda one: 1e6 / one.redis, 0),
}
"""Of the table: what is told, with so many digits."""


@dataclass(frozen=True)
class Found:
    """What was measured: dimensions and requests at a time by step, calls (µs) and memory (bytes) by kind."""

    grown: Mapping[str, Rounds[Times]]
    shared: Rounds[Shared]
    blocked: Mapping[str, Sequence[float]]
    taken: Mapping[str, float]


async def growth(server: RedisServer) -> Mapping[str, Rounds[Times]]:
    """Measure every dimension at each of its steps, by turns, in an empty Redis each."""
    found: dict[str, dict[int, list[Times]]] = {
        dimension.name: {step: [] for step in dimension.steps} for dimension in DIMENSIONS
    }
    for _ in range(ROUNDS):
        for dimension in DIMENSIONS:
            for step, rounds in found[dimension.name].items():
                rounds.append(await _step(server, dimension, step))
    server.client.flushall()
    return found


async def _step(server: RedisServer, dimension: Dimension, step: int) -> Times:
    server.client.flushall()
    bench = Bench(server.port)
    times = await dimension.measure(bench, step)
    await bench.client.aclose()
    return times


async def memory(server: RedisServer) -> Mapping[str, float]:
    """Return how many bytes of Redis a lease takes, and a scope with one lease; of a worker, a lease."""
    server.client.flushall()
    bench = Bench(server.port)
    lease = await bench.fill(IN_FLIGHT.format(LIVES), 100_000)
    scope = await bench.fill(IN_SCOPE, 100_000)
    await bench.client.aclose()
    worker = await worker_memory(server)
    return {
        "of Redis: a lease in one limit": lease,
        "of Redis: a scope with one lease": scope,
        "of the worker: a lease in four limits, and its answer": worker,
    }


def _tables(found: Found) -> Sequence[Table]:
    return [
        *(_dimension(one, found.grown[one.name]) for one in DIMENSIONS),
        _concurrency(found.shared),
        _rows("one call", "µs for which Redis was busy", {n: spread(b, 0) for n, b in found.blocked.items()}),
        _rows("bytes", "", {name: f"{size:.0f}" for name, size in found.taken.items()}),
    ]


def _dimension(dimension: Dimension, found: Rounds[Times]) -> Table:
    title = f"may grow as {dimension.order}"
    table = Table(dimension.name, dimension.what, "longest call µs", title=title)
    for step, rounds in found.items():
        longest = max(one.call for one in rounds)
        table.add_row(f"{step:,}", spread([one.request for one in rounds], 0), f"{longest:.0f}")
    return table


def _concurrency(found: Rounds[Shared]) -> Table:
    table = Table("at a time", *COLUMNS, title="four limits; of each request")
    for step, rounds in found.items():
        told = (spread([value(one) for one in rounds], digits) for value, digits in COLUMNS.values())
        table.add_row(f"{step:,}", *told)
    return table


def _rows(name: str, unit: str, values: Mapping[str, str]) -> Table:
    table = Table(name, unit)
    for row in values.items():
        table.add_row(*row)
    return table


def _panels(found: Found) -> Sequence[Panel]:
    """Return a panel for each dimension, and one for how many a worker has at a time."""
    grown = [_panel(one, found.grown[one.name]) for one in DIMENSIONS]
    lines = {
        "Redis, scripts": [[one.scripts for one in rounds] for rounds in found.shared.values()],
        "the worker's CPU": [[one.worker for one in rounds] for rounds in found.shared.values()],
    }
    title = "requests at a time in a worker"
    return [*grown, Panel(title, "µs a request, four limits", list(found.shared), lines)]


def _panel(dimension: Dimension, found: Rounds[Times]) -> Panel:
    lines = {"Redis": [[one.request for one in rounds] for rounds in found.values()]}
    return Panel(dimension.title, dimension.what, list(found), lines)


@click.command()
@click.option("--plots", type=click.Path(path_type=Path), help="An SVG file to draw the growth into.")
def main(*, plots: Path | None) -> None:
    """Measure, print the tables, and draw them."""
    if plots is not None and find_spec("matplotlib") is None:
        raise click.UsageError("--plots needs matplotlib: pip install '.[plots]'")
    with tempfile.TemporaryDirectory() as name:
        found = _measure(Path(name))
    console = Console(width=150)
    for table in _tables(found):
        console.print(table)
    if plots is not None:
        draw(_panels(found), plots)


def _measure(folder: Path) -> Found:
    server = RedisServer.start(folder)
    try:
        return Found(
            asyncio.run(growth(server)),
            uvloop.run(concurrency(server)),  # LiteLLM's server has uvloop
            asyncio.run(blocking(server)),
            asyncio.run(memory(server)),
        )
    finally:
        server.stop()


if __name__ == "__main__":
    main()
