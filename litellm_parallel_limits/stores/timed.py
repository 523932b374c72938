"""A backend whose calls are timed."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from litellm_parallel_limits.limits import Scope
from litellm_parallel_limits.stores import Holding
from litellm_parallel_limits.stores.exchange import Backend, Exchange, Grant, Reply

Tell = Callable[[str, float], None]
"""Takes what was asked for, and the seconds until it was answered."""


class Timed:
    """Passes calls on to `backend`, and tells how long each took that was answered.

    Turns are not timed: whoever listens for them waits.
    """

    def __init__(self, backend: Backend, tell: Tell) -> None:
        self.name = backend.name
        self._backend = backend
        self._tell = tell

    def now_ms(self) -> int:
        """Return the time by the backend's clock."""
        return self._backend.now_ms()

    async def exchange(self, exchange: Exchange) -> Reply:
        """Carry out a call as one."""
        with self._timing("exchange"):
            return await self._backend.exchange(exchange)

    def grants(self, worker: str) -> AsyncGenerator[Sequence[Grant], None]:
        """Yield what those are given that wait in `worker`."""
        return self._backend.grants(worker)

    async def waiting(self, scopes: Sequence[Scope]) -> Sequence[int]:
        """Return how many wait that came for a slot in each of `scopes`."""
        with self._timing("waiting"):
            return await self._backend.waiting(scopes)

    def holdings(self) -> AsyncIterator[Sequence[Holding]]:
        """Yield every slot in use."""
        return self._backend.holdings()

    async def free(self, scopes: Sequence[Scope], lease: str | None) -> int:
        """Free the slots in `scopes`, of `lease` only if one is named."""
        with self._timing("free"):
            return await self._backend.free(scopes, lease)

    async def note(self, place: str, amounts: Mapping[str, int], *, seconds: int, most: int) -> None:
        """Add `amounts` to what was noted at a `place`."""
        with self._timing("note"):
            await self._backend.note(place, amounts, seconds=seconds, most=most)

    async def noted(self, places: Sequence[str]) -> Sequence[Mapping[str, int]]:
        """Return the sums of what was noted at each of `places`."""
        with self._timing("noted"):
            return await self._backend.noted(places)

    @contextmanager
    def _timing(self, operation: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self._tell(operation, time.monotonic() - began)
