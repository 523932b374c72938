"""For how long one call keeps Redis busy, at most: nobody else is served meanwhile."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from litellm_parallel_limits.limits import Lease, Limit, Scope
from litellm_parallel_limits.stores.exchange import Ask
from litellm_parallel_limits.stores.shared import MOST_SLOTS
from tests.benchmarks.bench import IN_FLIGHT, LAPSED, NAMES, Bench, Measuring, crowd, limit
from tests.rig.redis_server import RedisServer


def _leases(bench: Bench) -> Sequence[Lease]:
    """Return as many as a call takes along, each slot in another scope."""
    users = [f"user{number}" for number in range(MOST_SLOTS // 4)]
    return [bench.lease(*(limit(name, of=user) for name in NAMES[:4])) for user in users]


async def _admissions(bench: Bench) -> None:
    await bench.exchange(asks=[Ask(lease) for lease in _leases(bench)])


async def _renewal(bench: Bench) -> None:
    await bench.exchange(renewals=_leases(bench))


async def _mass_expiry(bench: Bench) -> None:
    await bench.fill(IN_FLIGHT.format(LAPSED), 100_000)
    full = Limit(Scope("limit00", (("user", "ann"),)), 0)
    await bench.exchange(asks=[Ask(bench.lease(full))])


async def _turns(bench: Bench) -> None:
    held = await crowd(bench, MOST_SLOTS, 1_000)
    await bench.exchange(releases=[Ask(lease) for lease in held])


CALLS: Mapping[str, Callable[[Bench], Awaitable[None]]] = {
    f"{MOST_SLOTS} slots taken, each in a scope of its own": _admissions,
    f"{MOST_SLOTS} slots renewed, the same": _renewal,
    "100,000 leases lapsed at once": _mass_expiry,
    f"{MOST_SLOTS} slots freed for those who wait": _turns,
}
"""The largest that a worker makes, and what may happen to one."""

REPEATS = 10


async def blocking(server: RedisServer) -> Mapping[str, Sequence[float]]:
    """Return for how many microseconds the last call of each kind kept Redis busy, each time."""
    found: dict[str, list[float]] = {name: [] for name in CALLS}
    for _ in range(REPEATS):
        for name, call in CALLS.items():
            server.client.flushall()
            bench = Bench(server.port)
            await bench.exchange()
            async with Measuring(bench.client) as busy:
                await call(bench)
            found[name].append(busy[-1])
            await bench.client.aclose()
    return found
