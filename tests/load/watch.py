"""Looking at the store while the load runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from tests.load.holdings import Held, Holdings

PERIOD = 0.1


@dataclass(frozen=True)
class Sample:
    """What the store held at a moment of the monotonic clock; None where it did not tell."""

    moment: float
    held: Held | None


@dataclass
class Watch:
    """Looks ten times a second."""

    holdings: Holdings
    samples: list[Sample] = field(default_factory=list)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Look until the block ends."""
        looking = asyncio.create_task(self._look())
        try:
            yield
        finally:
            looking.cancel()
            with suppress(asyncio.CancelledError):
                await looking

    async def _look(self) -> None:
        while True:
            held = await asyncio.to_thread(self.holdings.held)
            self.samples.append(Sample(time.monotonic(), held))
            await asyncio.sleep(PERIOD)
