"""A TCP proxy between a client and a server, which loses connections and holds things up when told to."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tests.rig.process import HOST

_T = TypeVar("_T")
CHUNK = 65536


@dataclass(eq=False)
class _Link:
    """One client's connection, and ours to the server for it."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    doomed: bool = False
    """Whether it is cut as soon as the server answers."""

    def cut(self) -> None:
        for side in (self.client, self.server):
            side.transport.abort()


@dataclass
class _Orders:
    """What is to go wrong."""

    lose: int = 0
    probability: float = 0.0
    of: bytes = b""
    requests_flow: asyncio.Event = field(default_factory=asyncio.Event)
    replies_flow: asyncio.Event = field(default_factory=asyncio.Event)


class Relay:
    """Passes on what comes to `port` to the server at another port, and back, in a thread of its own.

    Every method takes effect before it returns, and may be called from anywhere but the relay's thread:

        relay = Relay.start(server.port)   # a client connects to relay.port
        relay.cut()                        # every connection open now is gone
        relay.lose_replies(2)              # the next two calls: done by the server, never answered
        relay.stall()                      # connections are accepted, and nothing is passed on
        relay.go_on()                      # what was held up arrives now, late; all is well again
        relay.stop()
    """

    def __init__(self, to: int, seed: int) -> None:
        self._to = to
        self._random = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay", daemon=True)
        self._orders = _Orders()
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: asyncio.Server | None = None
        self.port = 0
        self.accepted = 0
        """How many connections clients have made."""
        self.lost = 0
        """How many replies were lost on order."""

    @classmethod
    def start(cls, to: int, *, seed: int = 0) -> Relay:
        """Start a relay to the server at port `to`; `seed` decides what happens by probability."""
        relay = cls(to, seed)
        relay._thread.start()
        relay._run(relay._listen())
        relay.go_on()
        return relay

    def stop(self) -> None:
        """Cut everything, and listen no more."""
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def connections(self) -> int:
        """How many connections are open now."""
        return len(self._links)

    def cut(self) -> None:
        """Cut every connection that is open now. New ones are served."""
        self._run(self._cut())

    def lose_replies(self, next_calls: int = 0, *, probability: float = 0.0, of: bytes = b"EVALSHA") -> None:
        """Cut the connection when the server answers the next so many calls, or each with `probability`.

        A call is what a client sends in which the bytes `of` occur, so that the greetings of a new
        connection do not count; b"" is everything. The server has done what was asked; the client sees
        nothing of the answer. Replaces what was ordered before: without numbers, nothing is lost.
        """
        orders = self._orders

        def order() -> None:
            orders.lose, orders.probability, orders.of = next_calls, probability, of

        self._call(order)

    def stall(self, *, replies_only: bool = False) -> None:
        """Accept connections and pass nothing on; `replies_only`: requests still reach the server."""
        self._call(self._orders.replies_flow.clear)
        if not replies_only:
            self._call(self._orders.requests_flow.clear)

    def go_on(self) -> None:
        """Pass on what was held up, and all that comes from now on."""
        self._call(self._orders.requests_flow.set)
        self._call(self._orders.replies_flow.set)

    async def _listen(self) -> None:
        self._listener = await asyncio.start_server(self._serve, HOST, 0)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        assert self._listener is not None
        self._listener.close()
        await self._cut()

    async def _cut(self) -> None:
        relaying = list(self._tasks)
        for task in relaying:
            task.cancel()
        await asyncio.gather(*relaying, return_exceptions=True)
        await asyncio.sleep(0)  # transports close in the turn after their abort

    def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = self._loop.create_task(self._relay(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _relay(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        try:
            from_server, to_server = await asyncio.open_connection(HOST, self._to)
        except OSError:
            to_client.transport.abort()
            return
        link = _Link(to_client, to_server)
        self._links.add(link)
        try:
            await _first_of(self._requests(link, from_client), self._replies(link, from_server))
        finally:
            self._links.discard(link)
            link.cut()

    async def _requests(self, link: _Link, reader: asyncio.StreamReader) -> None:
        while chunk := await _read(reader):
            await self._orders.requests_flow.wait()
            link.doomed = link.doomed or self._is_to_be_lost(chunk)
            link.server.write(chunk)

    async def _replies(self, link: _Link, reader: asyncio.StreamReader) -> None:
        while chunk := await _read(reader):
            if link.doomed:
                self.lost += 1
                return
            await self._orders.replies_flow.wait()
            link.client.write(chunk)

    def _is_to_be_lost(self, request: bytes) -> bool:
        orders = self._orders
        if orders.of not in request:
            return False
        if orders.lose:
            orders.lose -= 1
            return True
        return self._random.random() < orders.probability

    def _call(self, act: Callable[[], object]) -> None:
        async def acting() -> None:
            act()

        self._run(acting())

    def _run(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        running: Future[_T] = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        return running.result(timeout=10)


async def _read(reader: asyncio.StreamReader) -> bytes:
    """Return what comes next, b"" once nothing more will."""
    with suppress(OSError):
        return await reader.read(CHUNK)
    return b""


async def _first_of(*coroutines: Coroutine[Any, Any, None]) -> None:
    """Return when the first has ended, and end the others."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
