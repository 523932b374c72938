"""What is in flight over all workers, for those who look after it."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from litellm_parallel_limits.errors import StoreError
from litellm_parallel_limits.health import Health, health
from litellm_parallel_limits.history import History, Past, Refusals
from litellm_parallel_limits.limiter import Limiter
from litellm_parallel_limits.limits import Scope
from litellm_parallel_limits.status import Look, Status, View, look, scope_id, status

FEW_SLOTS = 500
"""A look at no more is taken anew each time: LiteLLM's own work for the answer takes as long."""

SECONDS_A_SLOT = 0.0004
"""For which a look at more is shown to all: ten times as long as it takes to look at each, which so takes a
tenth of a worker's time at most."""


class Overview:
    """Shows what workers hold, and releases it.

    `limiter` gives that of the worker which is asked, `ttl` is how many seconds its leases live. However
    many look, and however often, what takes long to look at is looked at now and then.
    `clock` returns seconds that never go back.
    """

    def __init__(
        self,
        limiter: Callable[[], Limiter],
        history: History,
        *,
        ttl: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limiter = limiter
        self._history = history
        self._ttl = ttl
        self._clock = clock
        self._looking = asyncio.Lock()
        self._seen: Look | None = None
        self._seen_until = -math.inf

    async def status(self, view: View) -> Status:
        """Return what is in flight; while the store is out, in this worker."""
        async with self._looking:
            seen = await self._look()
        return await asyncio.to_thread(status, seen, view, store=self._limiter().store.name)

    async def past(self) -> Past:
        """Return what was in flight and refused lately. Raises StoreError."""
        return await self._history.past()

    async def release(self, *, scope: str | None, lease: str | None) -> int:
        """Free a lease, the scope of an id, or the one in the other, and return how many slots there were.

        Who held them goes on, and is no longer counted there. Raises StoreError.
        """
        store = self._limiter().store
        self._seen = None  # whoever released it wants to see that it is gone
        if scope is None:
            return await store.free(lease=lease)
        scopes = {holding.scope for holding in (await store.snapshot()).holdings}
        meant = next((one for one in scopes if scope_id(one) == scope), None)
        return 0 if meant is None else await store.free(scope=meant, lease=lease)

    async def health(self) -> Health:
        """Return how this worker's limiter is."""
        return await health(self._limiter())

    async def _look(self) -> Look:
        if self._seen is not None and self._clock() < self._seen_until:
            return self._seen
        snapshot = await self._limiter().snapshot()
        refused: Mapping[Scope, Refusals] = {}
        if snapshot.is_whole:
            with suppress(StoreError):
                refused = await self._history.refused_lately()
        seen = await asyncio.to_thread(look, snapshot, refused, ttl=self._ttl)
        slots = len(snapshot.holdings)
        self._seen = seen if seen.is_whole and slots > FEW_SLOTS else None
        self._seen_until = self._clock() + slots * SECONDS_A_SLOT
        return seen
