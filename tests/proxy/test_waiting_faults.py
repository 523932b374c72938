"""What breaks while requests wait loses nobody, and lets nobody pass who may not."""

from __future__ import annotations

import asyncio
import re
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.rig.config import config
from tests.rig.polling import until
from tests.rig.provider import Provider
from tests.rig.proxy import Proxy
from tests.rig.redis_server import RedisServer
from tests.rig.together import together
from tests.rig.waiting import Queue, Visit

pytestmark = pytest.mark.proxy

TTL = 3.0
ANSWER_SECONDS = 2.0
"""From a slot that comes free to the next who has it, where a worker has to find out first."""


def entry(name: str, number: int, **settings: Any) -> dict[str, Any]:
    """Return a limit by organization, for those whose names begin with its own."""
    who = {"name": name, "where": {"organization": f"{name}-*"}, "by": ["organization"]}
    return {
        **who,
        "max_parallel_requests": number,
        "wait": {"max_seconds": 15, "max_waiting": 50},
        **settings,
    }


LIMITS = [
    entry("single", 1),
    entry("double", 2),
    entry("allowed", 1, on_store_failure="allow"),
    entry("denied", 1, on_store_failure="deny"),
    entry("soon", 2, wait={"max_seconds": 2}),
    entry("crowd", 8, wait={"max_seconds": 60, "max_waiting": 10_000}),
]
SECTION = {"parallel_limits": {"lease_ttl": TTL, "limits": LIMITS}}


@dataclass
class OwnRedis:
    """A Redis that these tests may break."""

    folder: Path
    server: RedisServer

    def restart(self) -> None:
        """Start it again, with nothing in it, where it was."""
        self.server = RedisServer.start(self.folder, self.server.port)

    def keys(self) -> list[str]:
        """Return the names of our keys."""
        return list(self.server.client.scan_iter("*litellm_parallel_limits*", count=1000))


@pytest.fixture(scope="module")
def own_redis(folder: Callable[[str], Path]) -> Iterator[OwnRedis]:
    """A Redis of their own."""
    place = folder("waiting-redis")
    redis = OwnRedis(place, RedisServer.start(place))
    yield redis
    redis.server.stop()


@pytest.fixture(scope="module")
def started(
    provider: Provider, own_redis: OwnRedis, folder: Callable[[str], Path]
) -> Iterator[dict[str, Proxy]]:
    """Three proxies of one worker with short leases, of which one is to be killed."""
    one = config(provider.url, redis_port=own_redis.server.port, litellm_settings=SECTION)
    names = ("first", "second", "doomed")
    with together({name: {"folder": folder(name), "config": one} for name in names}) as proxies:
        yield proxies


@pytest.fixture
def proxies(started: dict[str, Proxy]) -> Sequence[Proxy]:
    """The two proxies that live on."""
    return [started["first"], started["second"]]


@pytest.fixture
def queue(proxies: Sequence[Proxy], provider: Provider) -> Callable[[str], Queue]:
    """Return a function that gives an organization of a limit."""
    return partial(Queue, provider, proxies)


# Workers that die


async def test_a_worker_that_is_killed_keeps_nobody_waiting(
    started: dict[str, Proxy], provider: Provider
) -> None:
    """What it held, what it was just granted, and where it waited, is others' within one time to live.

    It is stopped first, so that what it is granted then it does not take.
    """
    doomed = started["doomed"]
    held, granted, awaited = (Queue(provider, [started["first"], doomed], "single") for _ in range(3))
    holders = [await held.hold(at=1), await granted.hold(), await awaited.hold()]
    lost = [holders[0], await granted.wait(at=1), await awaited.wait(at=1)]
    behind = [await queue.wait() for queue in (held, granted, awaited)]
    doomed.server.process.send_signal(signal.SIGSTOP)
    await end(granted, holders[1])
    await until(lambda: granted.in_flight() == 1, 1, granted.scopes)
    doomed.server.kill()
    killed = time.monotonic()
    await end(awaited, holders[2])
    for queue, visit in zip((held, granted, awaited), behind, strict=True):
        left = TTL + ANSWER_SECONDS - (time.monotonic() - killed)
        await provider.holds(1, caller=visit.name, seconds=left)
        queue.open_all([visit])
        assert (await visit.answer).status_code == 200
    assert [provider.count(caller=visit.name).total for visit in lost[1:]] == [0, 0]
    ended = await asyncio.gather(*(visit.answer for visit in lost), return_exceptions=True)
    assert all(isinstance(end, httpx.TransportError) for end in ended)
    await started["first"].settled(TTL + 1)


# A store that fails


async def test_a_redis_that_has_forgotten_all_loses_nobody(
    queue: Callable[[str], Queue], own_redis: OwnRedis
) -> None:
    """Who waits is admitted after a flush, and never are there more than the limit says."""
    double = queue("double")
    held, behind = await full(double)
    own_redis.server.client.flushall()
    double.open_all([*held, *behind])
    assert await statuses([*held, *behind]) == {200}
    assert double.count().peak == 2
    await double.settled()


async def test_an_outage_is_met_by_those_who_wait_as_their_limits_say(
    queue: Callable[[str], Queue], own_redis: OwnRedis
) -> None:
    """A worker admits its share, or all, or nobody; the rest go on waiting, no longer than they may."""
    share, allow, deny, soon = (queue(name) for name in ("single", "allowed", "denied", "soon"))
    for place in (0, 1):
        await until(partial(is_sure, deny, place), 2 * TTL, share.proxies[place].status)
    held = [await one.hold() for one in (share, allow, deny)]
    held += [await soon.hold(at=place) for place in (0, 1)]
    here, there = await share.wait(), await share.wait(at=1)
    allowed, denied, late = await allow.wait(), await deny.wait(), await soon.wait()
    async with outage(own_redis, share.proxies, hangs=False):
        refused = await asyncio.wait_for(denied.answer, TTL)
        assert (refused.status_code, refused.headers["x-parallel-limit-reason"]) == (503, "store_unavailable")
        await share.provider.holds(1, caller=allowed.name)
        await share.provider.holds(1, caller=there.name)  # its worker's share; of the other's there is one
        timed_out = await asyncio.wait_for(late.answer, TTL)
        assert (timed_out.status_code, timed_out.headers["x-parallel-limit-reason"]) == (429, "wait_timeout")
        assert not here.answer.done()
        await end(share, held[0])
        await share.provider.holds(1, caller=here.name, seconds=1)
    rest = [*held[1:], here, there, allowed]
    share.open_all(rest)
    assert await statuses(rest) == {200}
    assert share.count().peak == 2
    for one in (share, allow, deny, soon):
        await one.settled()


@pytest.mark.parametrize("way", ["hangs", "restarts"])
async def test_the_order_is_what_it_was_when_redis_is_back(
    queue: Callable[[str], Queue], own_redis: OwnRedis, way: str
) -> None:
    """Those who waited through an outage go in the order in which they came, over all workers."""
    double = queue("double")
    held, behind = await full(double)
    async with outage(own_redis, double.proxies, hangs=way == "hangs"):
        assert not any(visit.answer.done() for visit in [*held, *behind])
    await double.waits(len(behind), seconds=2 * TTL + 2)
    late = await double.wait()
    double.open_all(held[:1])
    rest = await double.serve([*behind, late])
    double.open_all(held[1:])
    assert rest == [*behind, late]
    assert await statuses(held) == {200}
    assert double.count().peak == 2
    await double.settled()


async def is_sure(denying: Queue, place: int) -> bool:
    """Whether the proxy at this place trusts its store, after whatever happened before."""
    answer = await denying.send(at=place, model="openai/ok").answer
    return answer.status_code == httpx.codes.OK


async def full(queue: Queue) -> tuple[list[Visit], list[Visit]]:
    """Return who holds the two slots, one at each proxy, and four who wait, in the order they came."""
    held = [await queue.hold(at=place) for place in (0, 1)]
    return held, [await queue.wait(at=place % 2) for place in range(4)]


async def end(queue: Queue, visit: Visit) -> None:
    """Let the provider answer a request, and its slot come free."""
    queue.open_all([visit])
    assert (await visit.answer).status_code == 200


async def statuses(visits: Sequence[Visit]) -> set[int]:
    """Return the statuses of the answers, once they are there."""
    answers = await asyncio.wait_for(asyncio.gather(*(visit.answer for visit in visits)), 20)
    return {answer.status_code for answer in answers}


@asynccontextmanager
async def outage(redis: OwnRedis, proxies: Sequence[Proxy], *, hangs: bool) -> AsyncIterator[None]:
    """Have no Redis during the block, which begins, and ends, when all proxies know.

    It `hangs`, or is gone, and comes back with nothing in it.
    """
    end, begin = (redis.server.hang, redis.server.wake) if hangs else (redis.server.kill, redis.restart)
    end()
    try:
        await until(lambda: degraded(proxies) == {True}, TTL + 1, lambda: degraded(proxies))
        yield
    finally:
        begin()
    await until(lambda: degraded(proxies) == {False}, TTL + 2, lambda: degraded(proxies))


def degraded(proxies: Sequence[Proxy]) -> set[bool]:
    """Return whether proxies say that they cannot ask the store."""
    return {proxy.status()["degraded"] for proxy in proxies}


# Very many


@pytest.mark.alone
@pytest.mark.timeout(180)
async def test_a_flood_leaves_nothing_behind(
    queue: Callable[[str], Queue], proxies: Sequence[Proxy], own_redis: OwnRedis
) -> None:
    """Hundreds that wait cost few keys each, which are gone after them; the memory does not grow."""
    await flood(queue("crowd"), own_redis)
    used = resident(proxies)
    await flood(queue("crowd"), own_redis)
    await until(lambda: len(own_redis.keys()) <= KEYS_LEFT, 2 * TTL + 1, own_redis.keys)
    assert resident(proxies) < used + MOST_GROWTH


FLOOD = 400
KEYS_EACH = 2
KEYS_LEFT = 12
"""What is known of the workers."""

MOST_GROWTH = 80_000
"""Kilobytes, of both proxies: LiteLLM itself remembers a good deal of every request."""


async def flood(crowd: Queue, redis: OwnRedis) -> None:
    """Let very many wait, and be answered."""
    held = [await crowd.hold() for _ in range(8)]
    one, model = crowd.key(), crowd.model("ok")
    waiting = [crowd.send(one, model=model, at=place % 2) for place in range(FLOOD)]
    await crowd.waits(FLOOD, seconds=30)
    assert len(redis.keys()) < KEYS_EACH * FLOOD
    crowd.open_all(held)
    assert await statuses([*held, *waiting]) == {200}
    assert crowd.count("ok").peak <= 8
    await crowd.settled()


def resident(proxies: Sequence[Proxy]) -> int:
    """Return the memory of the proxies' processes, in kilobytes."""
    texts = [Path(f"/proc/{proxy.server.process.pid}/status").read_text() for proxy in proxies]
    return sum(int(re.findall(r"VmRSS:\s+(\d+)", text)[0]) for text in texts)
