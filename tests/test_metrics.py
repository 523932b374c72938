"""What Prometheus is told of a limit, whoever its requests are of."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector

from litellm_parallel_limits.errors import StoreError
from litellm_parallel_limits.events import (
    InvalidLimit,
    LookUpFailed,
    StoreAnswered,
    StoreFailed,
    StoreRecovered,
    WaitBegan,
    WaitEnded,
)
from litellm_parallel_limits.limiter import Limiter, Permit
from litellm_parallel_limits.limits import Limit, Refused
from litellm_parallel_limits.metrics import MULTIPROCESS, Metrics, forget_the_dead
from litellm_parallel_limits.stores.memory import MemoryStore
from tests.samples import limit, observed
from tests.slots import of_deployment

TTL = 30.0


class Scrape:
    """The metrics of a worker, as Prometheus reads them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry)
        self.limiter = Limiter(MemoryStore(ttl=TTL), ttl=TTL, observer=self.metrics)

    def value(self, name: str, **labels: str) -> float | None:
        """Return one number, None if there is no such series."""
        return self.registry.get_sample_value(f"litellm_parallel_limits_{name}", labels)

    def series(self) -> Iterator[Mapping[str, str]]:
        """Yield the labels of each."""
        for family in self.registry.collect():
            for sample in family.samples:
                yield sample.labels

    async def admit(self, *limits: Limit) -> Permit | Refused:
        """Ask for slots."""
        return await self.limiter.admit(limits)


@pytest.fixture
def scrape() -> Scrape:
    """Return the metrics of a worker in which nothing has happened."""
    return Scrape()


async def test_slots_are_counted_while_they_are_held(scrape: Scrape) -> None:
    """What is in flight is a gauge of each limit, and back at 0 when all is done."""
    permits = [await scrape.admit(limit(capacity=3), limit("user", 9)) for _ in range(3)]
    assert scrape.value("in_flight", limit="team") == 3
    assert scrape.value("in_flight", limit="user") == 3
    for permit in permits:
        assert isinstance(permit, Permit)
        permit.release()
        permit.release()
    assert scrape.value("in_flight", limit="team") == 0
    assert scrape.value("held_seconds_count", limit="team") == 3


async def test_each_outcome_is_counted(scrape: Scrape) -> None:
    """Who is admitted, who is refused by which limit, and who would be if it were enforced."""
    for _ in range(2):
        await scrape.admit(limit())
    for _ in range(3):
        await scrape.admit(observed())
    assert scrape.value("admissions_total", limit="team", outcome="admitted") == 1
    assert scrape.value("admissions_total", limit="team", outcome="refused") == 1
    assert scrape.value("admissions_total", limit="watched", outcome="admitted") == 1
    assert scrape.value("admissions_total", limit="watched", outcome="would_refuse") == 2


@pytest.mark.parametrize("reason", ["queue_full", "wait_timeout", "store_unavailable"])
def test_other_refusals_are_told_apart(scrape: Scrape, reason: str) -> None:
    """Why a request was refused is its outcome."""
    scrape.metrics(Refused(limit(), 1, reason))  # type: ignore[arg-type]
    assert scrape.value("admissions_total", limit="team", outcome=reason) == 1


async def test_utilization_is_that_which_a_request_met(scrape: Scrape) -> None:
    """Each request tells how full its limit was with it; a limit of none is full."""
    for _ in range(4):
        await scrape.admit(limit(capacity=4))
    await scrape.admit(limit("closed", 0))
    for most, count in (("0.25", 1), ("0.5", 2), ("0.75", 3), ("0.99", 3), ("1.0", 4)):
        assert scrape.value("limit_utilization_bucket", limit="team", le=most) == count
    assert scrape.value("limit_utilization_bucket", limit="closed", le="0.99") == 0


async def test_deployments_that_are_only_tried_are_no_requests(scrape: Scrape) -> None:
    """Of what a request holds until the router has chosen only the gauge tells."""
    permit = await scrape.admit(of_deployment("a"))
    assert isinstance(permit, Permit)
    assert isinstance(await scrape.admit(of_deployment("a")), Refused)
    assert scrape.value("in_flight", limit="deployment") == 1
    permit.release()
    assert scrape.value("in_flight", limit="deployment") == 0
    assert scrape.value("admissions_total", limit="deployment", outcome="admitted") is None
    assert scrape.value("held_seconds_count", limit="deployment") == 0


def test_waiting_is_counted_and_timed(scrape: Scrape) -> None:
    """How many wait now, and how long they did until they were admitted, refused, or gone."""
    for _ in range(2):
        scrape.metrics(WaitBegan(limit()))
    assert scrape.value("waiting", limit="team") == 2
    scrape.metrics(WaitEnded(limit(), 1.5, "admitted"))
    scrape.metrics(WaitEnded(limit(), 0.5, "left"))
    assert scrape.value("waiting", limit="team") == 0
    assert scrape.value("wait_seconds_sum", limit="team", outcome="admitted") == 1.5
    assert scrape.value("wait_seconds_count", limit="team", outcome="left") == 1


def test_trouble_is_counted(scrape: Scrape) -> None:
    """The store's failures, what it took, bad values, and records that cannot be read."""
    scrape.metrics(StoreAnswered("exchange", 0.002))
    scrape.metrics(StoreFailed("renew", StoreError("out")))
    assert scrape.value("degraded") == 1
    scrape.metrics(StoreRecovered())
    assert scrape.value("degraded") == 0
    assert scrape.value("store_failures_total", operation="renew") == 1
    assert scrape.value("store_seconds_count", operation="exchange") == 1
    scrape.metrics(InvalidLimit("key metadata"))
    assert scrape.value("invalid_limits_total", source="key metadata") == 1
    scrape.metrics(LookUpFailed(ValueError()))
    assert scrape.value("look_up_failures_total") == 1


async def test_number_of_series_is_that_of_the_limits(scrape: Scrape) -> None:
    """However many keys, teams and users there are, nothing of them is a label."""
    await _served(scrape, "one")
    series = len(list(scrape.series()))
    for number in range(10_000):
        await _served(scrape, f"team-{number}")
    assert len(list(scrape.series())) == series
    assert not any("team-" in value for labels in scrape.series() for value in labels.values())


async def _served(scrape: Scrape, team: str) -> None:
    permit = await scrape.admit(limit(of=team))
    assert isinstance(permit, Permit)
    assert await scrape.admit(limit(of=team)) is not None
    permit.release()


COUNTS_AND_DIES = """
import os, signal
from prometheus_client import CollectorRegistry
from litellm_parallel_limits.limits import Admitted
from litellm_parallel_limits.metrics import Metrics
from tests.samples import lease, limit
Metrics(CollectorRegistry())(Admitted(lease(limit()), (1,)))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_worker_that_was_killed_counts_no_more(tmp_path: Path) -> None:
    """What a worker held that was killed is counted until the next one starts, and no longer."""

    def in_flight() -> float | None:
        registry = CollectorRegistry()
        MultiProcessCollector(registry, str(tmp_path))  # type: ignore[no-untyped-call]
        return registry.get_sample_value("litellm_parallel_limits_in_flight", {"limit": "team"})

    environment = {**os.environ, MULTIPROCESS: str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[1])}
    ended = subprocess.run([sys.executable, "-c", COUNTS_AND_DIES], env=environment, check=False)
    assert (ended.returncode, in_flight()) == (-signal.SIGKILL, 1)
    forget_the_dead(tmp_path)
    assert in_flight() is None


def test_worker_that_lives_goes_on_counting(tmp_path: Path) -> None:
    """A process that has not ended keeps its gauges."""
    own = tmp_path / f"gauge_livesum_{os.getpid()}.db"
    own.touch()
    forget_the_dead(tmp_path)
    assert own.exists()
