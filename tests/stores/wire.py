"""The way between a store and its Redis, as a test wants it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any


class Wire:
    """A Redis client whose calls a test counts, holds back, and cuts.

    A call waits for `there` before it reaches Redis, and its reply for `back`; both are open at first.
    While the wire is `cut`, calls fail. `passing` is done when a reply, or a failure, has come. What only
    looks goes another way, which is always open.
    """

    def __init__(self, client: Any) -> None:
        self.client = client
        self.calls: list[Sequence[str | int]] = []
        self.there = _open()
        self.back = _open()
        self.cut = False
        self.passing: Callable[[], object] = lambda: None

    def register_script(self, script: str) -> Callable[..., Awaitable[Any]]:
        """Return `script` as a callable that goes this way."""
        run = self.client.register_script(script)

        async def call(keys: Sequence[str], args: Sequence[str | int]) -> Any:
            if not args:
                return await run(keys, args)
            self.calls.append(args)
            await self.there.wait()
            if self.cut:
                self.passing()
                raise ConnectionError("the wire is cut")
            reply = await run(keys, args)
            self.passing()
            await self.back.wait()
            return reply

        return call

    async def zrange(self, name: str, start: int, end: int) -> Any:
        """Look at once."""
        return await self.client.zrange(name, start, end)

    async def called(self, times: int) -> None:
        """Return once so many calls have been made."""
        while len(self.calls) < times:  # noqa: ASYNC110 (turns of the loop, no time)
            await asyncio.sleep(0)


def _open() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event
