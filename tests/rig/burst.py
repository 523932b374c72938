"""Requests sent at once, held by the provider until all of them are admitted or refused."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.rig.identities import caller
from tests.rig.polling import until
from tests.rig.provider import Provider
from tests.rig.proxy import Proxy

GATED = "openai/gated"
"""A model whose requests the provider holds until the caller's gate is open."""


@dataclass(frozen=True)
class Ask:
    """A chat request of `key` for `model`; `body` is added to it."""

    key: str
    model: str = GATED
    body: dict[str, Any] = field(default_factory=dict)

    async def send(self, proxy: Proxy) -> httpx.Response:
        """Return the proxy's answer."""
        body = {"model": self.model, "messages": [{"role": "user", "content": "hi"}], **self.body}
        async with proxy.http(self.key) as client:
            return await client.post("/v1/chat/completions", json=body)


@dataclass(frozen=True)
class Burst:
    """The answers to a burst, in the order of its requests, and how many the provider held at once."""

    answers: Sequence[httpx.Response]
    held: int

    @property
    def statuses(self) -> Counter[int]:
        """How many answers there are of each status."""
        return Counter(answer.status_code for answer in self.answers)

    @property
    def refusals(self) -> list[httpx.Response]:
        """The answers to the requests that were refused."""
        return [answer for answer in self.answers if answer.status_code == httpx.codes.TOO_MANY_REQUESTS]


async def burst(proxy: Proxy, provider: Provider, asks: Sequence[Ask]) -> Burst:
    """Send `asks` at once; when each is refused or at the provider, let the provider answer."""
    callers = {caller(ask.key) for ask in asks}
    sent = [asyncio.create_task(ask.send(proxy)) for ask in asks]

    def held() -> int:
        return sum(provider.count(caller=name).in_flight for name in callers)

    def decided() -> int:
        return sum(answer.done() for answer in sent)

    await until(lambda: decided() + held() == len(asks), 20, lambda: (decided(), held()))
    at_once = held()
    for name in callers:
        provider.open_gate(name)
    return Burst(await asyncio.gather(*sent), at_once)


@asynccontextmanager
async def one_in_flight(proxy: Proxy, provider: Provider, one: str) -> AsyncIterator[None]:
    """Hold a request of the key `one` at the provider while the context lasts."""
    holding = asyncio.create_task(Ask(one, GATED).send(proxy))
    await provider.holds(1, caller=caller(one))
    try:
        yield
    finally:
        provider.open_gate(caller(one))
        assert (await holding).status_code == httpx.codes.OK
