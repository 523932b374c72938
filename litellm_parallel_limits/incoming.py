"""What a client sends, and that it has left."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

LEAVING = frozenset({"http.disconnect", "websocket.disconnect"})
"""The messages with which a server tells that a client has left."""

MOST_MESSAGES = 64
"""Kept for the application while nobody reads but we. Ours: who sends so much meanwhile is there."""


class Incoming:
    """An ASGI `receive` that tells meanwhile whether the client has `gone`.

    What is read for that is kept for the application. A read that has begun is not given up, but ends with
    whoever asks next: not every server bears that.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._kept: deque[Message] = deque()
        self._reading: asyncio.Task[None] | None = None
        self._others = 0
        self._has_left = False
        self._changed: asyncio.Event | None = None

    async def __call__(self) -> Message:
        """Return the next message."""
        while self._reading is not None and not self._kept:
            await asyncio.wait({self._reading})
        if self._kept:
            self._tell()
            return self._kept.popleft()
        self._others += 1
        try:
            return self._seen(await self._receive())
        finally:
            self._others -= 1
            self._tell()

    async def gone(self) -> None:
        """Return when the client has left."""
        while not self._has_left:
            if self._reading is None and (self._others or len(self._kept) >= MOST_MESSAGES):
                self._changed = asyncio.Event()  # the application looks itself, or not at what there is
                await self._changed.wait()
            else:
                self._reading = self._reading or asyncio.ensure_future(self._read())
                await asyncio.wait({self._reading})

    def close(self) -> None:
        """Read no more."""
        if self._reading is not None:
            self._reading.cancel()

    def _tell(self) -> None:
        if self._changed is not None:
            self._changed.set()

    async def _read(self) -> None:
        try:
            self._kept.append(self._seen(await self._receive()))
        except Exception:  # noqa: BLE001 (a server's; the application meets it when it reads itself)
            self._has_left = True
        finally:
            self._reading = None

    def _seen(self, message: Message) -> Message:
        self._has_left = self._has_left or message["type"] in LEAVING
        return message
