"""The promise under load, in short; `python -m tests.load` is the long form."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.load.clients import Demand
from tests.load.faults import FAULTS, Fault, hold_redis_up
from tests.load.parties import LIMIT
from tests.load.report import broken
from tests.load.rig import Rig
from tests.load.run import Plan, run
from tests.rig.ledger import Window

pytestmark = [pytest.mark.proxy, pytest.mark.alone, pytest.mark.timeout(240)]

TTL = 5.0
LONG_TTL = 10.0
"""Of leases that need not lapse in a test: a busy machine may hold a worker up for seconds."""
UNHURRIED_MS = 1000
"""Of the store: a busy machine is no outage here."""

SHORTLY = 3.6
"""In flight on average in a look of seconds; the long form holds 3.8."""

STEADY = Demand(clients=60, takes=4.0, back_off=2.0)
BRISK = Demand(clients=60, takes=2.0, back_off=2.0)
CHEAP = (
    FAULTS["flush-scripts"],
    FAULTS["flush"],
    Fault("stop-redis", "SIGSTOP of Redis for 2 s", hold_redis_up(2)),
    FAULTS["kill-worker"],
)


@pytest.fixture(scope="module")
def redis_rig(folder: Callable[[str], Path]) -> Iterator[Rig]:
    """Two proxies with three workers on one Redis."""
    with Rig.running(folder("redis-load"), "redis", TTL, (2, 1), UNHURRIED_MS) as rig:
        yield rig


@pytest.fixture(scope="module")
def host_rig(folder: Callable[[str], Path]) -> Iterator[Rig]:
    """A proxy with three workers, without Redis."""
    with Rig.running(folder("host-load"), "host", LONG_TTL, (3,), UNHURRIED_MS) as rig:
        yield rig


@pytest.mark.parametrize("form", ["redis", "host"])
async def test_the_limit_is_reached_and_never_passed(form: str, request: pytest.FixtureRequest) -> None:
    """While more ask than there is room for, the provider holds nearly 4 of 4 in each scope, and never more.

    Nothing is left over, and nobody is answered anything but 200 or 429.
    """
    rig: Rig = request.getfixturevalue(f"{form}_rig")
    record = await run(rig, Plan(STEADY, seconds=9, warm_up=4))
    assert not "\n".join(broken(record, least_mean=SHORTLY))


async def test_faults_pass(redis_rig: Rig) -> None:
    """After each fault the count is exact again; at the end nothing is left over, and no answer was a 500."""
    record = await run(redis_rig, Plan(BRISK, seconds=26, strikes_after=3, strikes_apart=5.5), CHEAP)
    *between, after_last = pairwise([*(strike.over for strike in record.strikes), record.whole.until])
    assert all(record.is_exact_once(Window(*bounds)) for bounds in between)
    recovered = Window(after_last[0] + TTL, after_last[1])
    assert record.is_exact_once(recovered)
    assert record.peak(recovered) <= LIMIT
    assert record.ends()["failed"] == 0
    assert record.left_later == {}
