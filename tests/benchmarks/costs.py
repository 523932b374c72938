"""What it costs to be limited, beside LiteLLM's own limiter, a bare call of Redis, and nothing."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from statistics import median

from rich.table import Table

from tests.benchmarks.child import Child, Load, Measured
from tests.benchmarks.figures import spread
from tests.rig.redis_server import RedisServer

MANY, ONE = Load(50, 2_000), Load(1, 150)
WORKERS = 4

OURS, FREE, THEIRS, BARE, NOTHING = "ours", "ours, no limit", "LiteLLM", "bare call", "nothing"

Case = tuple[str, str, Load]
"""A store, a way and a load."""

CASES: Sequence[Case] = (
    *(("redis", way, load) for load in (MANY, ONE) for way in (NOTHING, BARE, THEIRS, OURS)),
    *(("memory", way, load) for load in (MANY, ONE) for way in (NOTHING, THEIRS, OURS, FREE)),
    *(("host", way, MANY) for way in (NOTHING, OURS)),
)


@dataclass(frozen=True)
class Cost:
    """Microseconds for one request, beyond those of measuring: of the worker's CPU, of waiting, of Redis."""

    cpu: float
    waited: float
    redis: float


Round = Mapping[Case, Cost]


@dataclass(frozen=True)
class Target:
    """How `ours` compares with `theirs`, in `what`, and `most` it may be of that."""

    title: str
    what: Callable[[Cost], float]
    ours: Case
    theirs: Case
    most: float


def _cpu(cost: Cost) -> float:
    return cost.cpu


def _waited(cost: Cost) -> float:
    return cost.waited


def _redis(cost: Cost) -> float:
    return cost.redis


TARGETS = (
    Target("Redis, 50 at a time: CPU", _cpu, ("redis", OURS, MANY), ("redis", THEIRS, MANY), 1 / 10),
    Target("", _cpu, ("redis", OURS, MANY), ("redis", BARE, MANY), 1 / 2),
    Target("Redis, one at a time: latency", _waited, ("redis", OURS, ONE), ("redis", THEIRS, ONE), 1 / 2),
    Target("", _waited, ("redis", OURS, ONE), ("redis", BARE, ONE), 1.25),
    Target("memory, 50 at a time: CPU", _cpu, ("memory", OURS, MANY), ("memory", THEIRS, MANY), 1 / 25),
    Target("memory, one at a time: CPU", _cpu, ("memory", OURS, ONE), ("memory", THEIRS, ONE), 1 / 25),
    Target("host, 4 workers, 50 at a time each: CPU", _cpu, ("host", OURS, MANY), ("redis", THEIRS, MANY), 1 / 4),  # noqa: E501
    Target("no limit, 50 at a time: CPU", _cpu, ("memory", FREE, MANY), ("memory", THEIRS, MANY), 1 / 25),
    Target("Redis' own CPU, 50 at a time", _redis, ("redis", OURS, MANY), ("redis", THEIRS, MANY), 1),
)  # fmt: skip


class Costs:
    """Measures, each way in turn, round by round."""

    def __init__(self, redis: RedisServer, children: Mapping[str, Sequence[Child]]) -> None:
        self._redis = redis
        self._children = children

    @classmethod
    @contextmanager
    def begin(cls) -> Iterator[Costs]:
        """Start a Redis server and the processes."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            redis = RedisServer.start(folder)
            children = {
                "redis": [Child(folder / "redis", "redis", redis.port)],
                "memory": [Child(folder / "memory", "memory")],
                "host": [Child(folder / f"host-{number}", "host") for number in range(WORKERS)],
            }
            try:
                yield cls(redis, children)
            finally:
                for child in chain(*children.values()):
                    child.stop()
                redis.stop()

    def round(self) -> Round:
        """Measure every case once."""
        found = {case: self._measure(case) for case in CASES}
        return {
            (store, way, load): _beyond(found[store, NOTHING, load], cost)
            for (store, way, load), cost in found.items()
        }

    def _measure(self, case: Case) -> Cost:
        store, way, load = case
        before = self._redis_seconds()
        measuring = [child.measure(way, load) for child in self._children[store]]
        found: list[Measured] = [one.result() for one in measuring]
        redis = (self._redis_seconds() - before) / load.requests * 1e6
        return Cost(median(one.cpu for one in found), median(one.waited for one in found), redis)

    def _redis_seconds(self) -> float:
        told = self._redis.client.info("cpu")
        return float(told["used_cpu_user"] + told["used_cpu_sys"])


def _beyond(nothing: Cost, cost: Cost) -> Cost:
    return Cost(cost.cpu - nothing.cpu, cost.waited - nothing.waited, cost.redis - nothing.redis)


def table(rounds: Sequence[Round]) -> Table:
    """Return the targets, and what was found."""
    found = Table("µs a request", "ours", "other", "other's", "ratio", "target", "met")
    for target in TARGETS:
        ours = [target.what(one[target.ours]) for one in rounds]
        others = [target.what(one[target.theirs]) for one in rounds]
        ratios = [mine / other for mine, other in zip(ours, others, strict=True)]
        told = (target.title, spread(ours, 0), _name(target.theirs), spread(others, 0), spread(ratios, 3))
        found.add_row(*told, f"{target.most:.3g}", "yes" if median(ratios) <= target.most else "no")
    return found


def _name(case: Case) -> str:
    store, way, _ = case
    return way if way == BARE else f"{way}, {store}"
