"""The way between a worker and the backend of its store, as a test wants it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from litellm_parallel_limits.stores.exchange import Backend, Exchange, Reply

Mishap = Callable[[Backend, Exchange], Awaitable[Reply]]
"""What becomes of a call on its way."""


class Road:
    """A way to `backend`. Each call meets the next of the `mishaps`, and then the one that is `usual`.

    `hear` is told of every reply that comes back.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.name = backend.name
        self.now_ms = backend.now_ms
        self.holdings = backend.holdings
        self.free = backend.free
        self.grants = backend.grants
        self.waiting = backend.waiting
        self.note = backend.note
        self.noted = backend.noted
        self.calls: list[Exchange] = []
        self.mishaps: deque[Mishap] = deque()
        self.usual: Mishap = arrived
        self.hear: Callable[[Exchange, Reply], None] = lambda *_: None

    async def exchange(self, exchange: Exchange) -> Reply:
        """Carry out a call, or not."""
        self.calls.append(exchange)
        meets = self.mishaps.popleft() if self.mishaps else self.usual
        reply = await meets(self.backend, exchange)
        self.hear(exchange, reply)
        return reply

    async def called(self, times: int) -> None:
        """Return once so many calls have been made."""
        while len(self.calls) < times:  # noqa: ASYNC110 (turns of the loop, no time)
            await asyncio.sleep(0)


async def arrived(backend: Backend, exchange: Exchange) -> Reply:
    """Carry out the call."""
    return await backend.exchange(exchange)


async def call_lost(backend: Backend, exchange: Exchange) -> Reply:
    """Fail at once, with nothing done."""
    raise ConnectionError("the call is lost")


async def reply_lost(backend: Backend, exchange: Exchange) -> Reply:
    """Carry out the call, and fail."""
    await backend.exchange(exchange)
    raise ConnectionError("the reply is lost")


async def call_silent(backend: Backend, exchange: Exchange) -> Reply:
    """Never answer, with nothing done."""
    return await asyncio.Event().wait()  # type: ignore[return-value]  # it does not return


async def reply_silent(backend: Backend, exchange: Exchange) -> Reply:
    """Carry out the call, and never answer."""
    await backend.exchange(exchange)
    return await call_silent(backend, exchange)
