"""Requests that wait for a slot, each known to the provider by a name of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from uuid import uuid4

import httpx

from tests.rig.identities import CALLER, key
from tests.rig.ledger import Count
from tests.rig.polling import until
from tests.rig.provider import Provider
from tests.rig.proxy import Proxy

GATED = "openai/gated"


@dataclass(frozen=True)
class Visit:
    """A chat request under way; `name` is what the provider calls it."""

    name: str
    answer: asyncio.Task[httpx.Response]

    async def leave(self) -> None:
        """Go away without an answer."""
        self.answer.cancel()
        await asyncio.wait({self.answer})


@dataclass(frozen=True)
class Queue:
    """An organization whose requests meet the limit `limit`, over all `proxies`, and wait for it.

    That limit counts by organization, and is about those whose names begin with its own.
    """

    provider: Provider
    proxies: Sequence[Proxy]
    limit: str = "pool"
    nonce: str = field(default_factory=lambda: uuid4().hex[:12])

    @cached_property
    def organization(self) -> str:
        """Its name."""
        return f"{self.limit}-{self.nonce}"

    def key(self, **record: object) -> str:
        """Return a new key of it."""
        return key(**{"org_id": self.organization, **record})

    def model(self, behaviour: str = "gated") -> str:
        """Return a model that nobody else asks for, which behaves so."""
        return f"openai/{behaviour}:{self.nonce}"

    def send(
        self,
        one: str = "",
        *,
        at: int = 0,
        model: str = "",
        headers: Mapping[str, str] | None = None,
        **body: Any,
    ) -> Visit:
        """Send a request of the key `one`, or of a new one, to the proxy `at` this place."""
        name = uuid4().hex[:12]
        sending = self._send(
            one or self.key(), at, model or self.model(), {CALLER: name, **(headers or {})}, body
        )
        return Visit(name, asyncio.create_task(sending))

    async def _send(
        self, one: str, at: int, model: str, headers: Mapping[str, str], body: Mapping[str, Any]
    ) -> httpx.Response:
        asked = {"model": model, "messages": [{"role": "user", "content": "hi"}], **body}
        async with self.proxies[at].http(one) as client:
            return await client.post("/v1/chat/completions", json=asked, headers=headers)

    async def hold(self, one: str = "", **sending: Any) -> Visit:
        """Return a request that the provider holds."""
        visit = self.send(one, **sending)

        def is_held() -> bool:
            return visit.answer.done() or self.provider.count(caller=visit.name).in_flight == 1

        await until(is_held, 10, self.scopes)
        assert not visit.answer.done(), visit.answer.result().text
        return visit

    async def wait(self, one: str = "", **sending: Any) -> Visit:
        """Return a request that waits, behind those that wait already."""
        before = self.waiting()
        visit = self.send(one, **sending)
        await self.waits(before + 1)
        return visit

    def waiting(self) -> int:
        """Return how many wait."""
        return sum(int(scope["waiting"]) for scope in self.scopes())

    def in_flight(self) -> int:
        """Return how many slots are taken."""
        return sum(int(scope["in_flight"]) for scope in self.scopes())

    def scopes(self) -> list[dict[str, Any]]:
        """Return what the status says of the limit."""
        mine = {"organization": self.organization}
        return [scope for scope in self.proxies[0].status()["scopes"] if scope["scope"] == mine]

    async def waits(self, number: int, seconds: float = 5) -> None:
        """Return once so many wait. Raises AssertionError if that never comes."""
        await until(lambda: self.waiting() == number, seconds, self.scopes)

    async def settled(self, seconds: float = 5) -> None:
        """Return once no slot is taken."""
        await until(lambda: self.in_flight() == 0, seconds, self.scopes)

    def count(self, behaviour: str = "gated") -> Count:
        """Return what the provider counted of it."""
        return self.provider.count(model=f"{behaviour}:{self.nonce}")

    def first(self, visits: Sequence[Visit]) -> list[Visit]:
        """Return those of `visits` that the provider has seen, in the order in which they came there."""
        steps = {visit.name: self.provider.history(visit.name).steps for visit in visits}
        seen = [visit for visit in visits if steps[visit.name]]
        return sorted(seen, key=lambda visit: steps[visit.name][0][0])

    async def serve(self, visits: Sequence[Visit]) -> list[Visit]:
        """Let the provider answer one after the other, and return the order in which they came there."""
        order: list[Visit] = []
        left = {visit.name: visit for visit in visits}
        while left:
            name = await self.at_provider(list(left))
            order.append(left.pop(name))
            self.provider.open_gate(name)
            assert (await order[-1].answer).status_code == httpx.codes.OK, order[-1].answer.result().text
        return order

    async def at_provider(self, names: Sequence[str], seconds: float = 5) -> str:
        """Return which of `names` the provider holds, once it holds one."""

        def held() -> list[str]:
            return [name for name in names if self.provider.count(caller=name).in_flight]

        await until(lambda: bool(held()), seconds, lambda: (self.count(), self.scopes()))
        [name] = held()
        return name

    def open_all(self, visits: Sequence[Visit]) -> None:
        """Let the provider answer all of `visits`, whenever they come there."""
        for visit in visits:
            self.provider.open_gate(visit.name)
