"""The clients: each asks for its party again and again, and some leave before they have their answer."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Literal

import httpx

from tests.load.parties import MODEL, Party
from tests.rig.identities import CALLER, TAKES
from tests.rig.proxy import Proxy

LEAVING = 0.1
"""Of the requests: their client leaves at any moment of the time that the provider takes."""

SPREAD = 0.5
"""A time is drawn from its mean less this part of it to its mean and this part more."""

LIMITS = httpx.Limits(max_connections=None, keepalive_expiry=2)
"""Of a client's connections: uvicorn closes one that is idle for 5 s, perhaps just when we write to it."""

End = Literal["admitted", "refused", "failed", "left", "cut", "unreached"]
"""`failed`: any other status; `cut`: the connection broke, or 30 s passed; `unreached`: nobody listened."""


@dataclass(frozen=True)
class Outcome:
    """What became of one request of `party`, `sent` and ended at these moments of the monotonic clock.

    `added` are the seconds until a refusal or until the first byte, without those that the provider took
    for it; None where neither came.
    """

    party: str
    sent: float
    ended: float
    end: End
    status: int | None = None
    added: float | None = None


@dataclass(frozen=True)
class Demand:
    """How many clients there are; mean seconds a request takes, and a refused client waits to ask again."""

    clients: int
    takes: float
    back_off: float


@dataclass
class Load:
    """Clients of the parties, in turn, each at a proxy of its luck."""

    parties: Sequence[Party]
    demand: Demand
    proxies: Callable[[], Sequence[Proxy]]
    outcomes: list[Outcome] = field(default_factory=list)
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _https: dict[tuple[str, str], httpx.AsyncClient] = field(default_factory=dict)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Let the clients begin, one after another; at the end let each finish the request that it is at."""
        parties = itertools.islice(itertools.cycle(self.parties), self.demand.clients)
        async with AsyncExitStack() as stack:
            for proxy, key in itertools.product(
                self.proxies(), (key for party in self.parties for key in party.keys)
            ):
                http = proxy.http(key, limits=LIMITS)
                self._https[proxy.url, key] = await stack.enter_async_context(http)
            clients = [asyncio.create_task(self._client(party)) for party in parties]
            yield
            self._stopping.set()
            await asyncio.gather(*clients)

    async def _client(self, party: Party) -> None:
        await asyncio.sleep(random.uniform(0, self.demand.back_off))
        while not self._stopping.is_set():
            outcome = await self._request(party)
            self.outcomes.append(outcome)
            if outcome.end != "admitted":
                await self._wait_a_moment()

    async def _wait_a_moment(self) -> None:
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), _about(self.demand.back_off))

    async def _request(self, party: Party) -> Outcome:
        proxy, key = random.choice(self.proxies()), random.choice(party.keys)
        ask = _Ask(self._https[proxy.url, key], party.name, _about(self.demand.takes))
        patience = ask.takes * random.random() if random.random() < LEAVING else None
        sent = time.monotonic()
        outcome = Outcome(party.name, sent, sent, "left")
        try:
            outcome = await asyncio.wait_for(ask.send(outcome), patience)
        except asyncio.TimeoutError:
            pass
        except httpx.ConnectError:
            outcome = replace(outcome, end="unreached")
        except httpx.TransportError:
            outcome = replace(outcome, end="cut")
        return replace(outcome, ended=time.monotonic())


@dataclass(frozen=True)
class _Ask:
    http: httpx.AsyncClient
    caller: str
    takes: float
    streams: bool = field(default_factory=lambda: random.random() < 0.5)

    async def send(self, outcome: Outcome) -> Outcome:
        """Return `outcome` as the proxy's answer makes it."""
        headers = {CALLER: self.caller, TAKES: f"{self.takes:.3f}"}
        body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "stream": self.streams}
        async with self.http.stream("POST", "/v1/chat/completions", json=body, headers=headers) as answer:
            is_admitted = answer.status_code == httpx.codes.OK
            before = self.takes if is_admitted and not self.streams else 0
            added = time.monotonic() - outcome.sent - before
            await answer.aread()
        return replace(outcome, end=_end(answer.status_code), status=answer.status_code, added=added)


def _end(status: int) -> End:
    ends: dict[int, End] = {200: "admitted", 429: "refused"}
    return ends.get(status, "failed")


def _about(seconds: float) -> float:
    return random.uniform(1 - SPREAD, 1 + SPREAD) * seconds
