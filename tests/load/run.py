"""One run: the load for some seconds, a fault in the middle if there is one, and the end of everything."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import httpx

from tests.load.clients import Demand, Load
from tests.load.faults import Fault
from tests.load.holdings import Held, Holdings
from tests.load.parties import parties
from tests.load.record import Record, Strike
from tests.load.rig import Rig
from tests.load.watch import PERIOD, Watch
from tests.rig.burst import Ask, burst
from tests.rig.identities import key
from tests.rig.ledger import Window
from tests.rig.polling import until

ASKS_TO_WAKE_UP = 8
"""At once for each worker: one that is busy leaves the next connection to another."""


@dataclass(frozen=True)
class Plan:
    """The load's length and the part of it that is not measured, both in seconds.

    The first fault strikes after `strikes_after` seconds, another one each `strikes_apart` later.
    """

    demand: Demand
    seconds: float
    warm_up: float = 5.0
    strikes_after: float = 9.0
    strikes_apart: float = 5.0


async def run(rig: Rig, plan: Plan, faults: Sequence[Fault] = ()) -> Record:
    """Put the load on the rig, let the faults strike, and return what was seen."""
    await wake_up(rig)
    first_admitted = await is_first_admitted(rig)
    rig.provider.reset()
    load, watch = Load(parties(), plan.demand, rig.living), Watch(rig.holdings())
    begun = time.monotonic()
    async with watch.running(), load.running():
        strikes = [
            await _strike(rig, fault, begun + plan.strikes_after + number * plan.strikes_apart)
            for number, fault in enumerate(faults)
        ]
        await _at(begun + plan.seconds)
        stopped = time.monotonic()
    await until(lambda: not rig.provider.count().in_flight, 60, rig.provider.count)
    left = await _left(watch.holdings, 1.0)
    await _at(time.monotonic() + rig.ttl)
    return Record(
        Window(begun, stopped),
        Window(begun + plan.warm_up, stopped),
        load.outcomes,
        {party.name: rig.provider.history(party.name) for party in load.parties},
        watch.samples,
        left,
        await _left(watch.holdings, 0),
        first_admitted,
        strikes,
    )


async def wake_up(rig: Rig) -> None:
    """Let every worker answer something: the first answer takes LiteLLM seconds, of imports above all."""
    ask = Ask(key(), "openai/ok")
    for proxy, number in zip(rig.proxies, rig.workers, strict=True):
        await asyncio.gather(*(ask.send(proxy) for _ in range(number * ASKS_TO_WAKE_UP)))


async def is_first_admitted(rig: Rig) -> bool:
    """Whether at a limit of 1 one of two requests is admitted and the other refused, at every proxy."""
    bursts = [
        await burst(proxy, rig.provider, [Ask(key(metadata={"max_parallel_requests": 1}))] * 2)
        for proxy in rig.living()
    ]
    return all(one.statuses == {httpx.codes.OK: 1, httpx.codes.TOO_MANY_REQUESTS: 1} for one in bursts)


async def _strike(rig: Rig, fault: Fault, moment: float) -> Strike:
    await _at(moment)
    at = time.monotonic()
    await fault.strike(rig)
    return Strike(at, time.monotonic())


async def _at(moment: float) -> None:
    await asyncio.sleep(max(0, moment - time.monotonic()))


async def _left(holdings: Holdings, seconds: float) -> Held | None:
    """Return what the store holds, once that is nothing or so many seconds have passed."""
    deadline = time.monotonic() + seconds
    while (held := holdings.held()) is None or any(held.values()):
        if time.monotonic() >= deadline:
            break
        await asyncio.sleep(PERIOD)
    return held
