"""A store that can be out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from litellm_parallel_limits.errors import StoreError
from litellm_parallel_limits.limits import Answer, Lease
from litellm_parallel_limits.stores import Snapshot
from litellm_parallel_limits.stores.memory import MemoryStore


class FaultyStore(MemoryStore):
    """Keeps leases in memory, shared by so many `workers`.

    While it is `out`, it cannot answer, and while it is `silent`, it does not even say so. `asked` holds
    the names of the leases it was asked for, also while it was out; `renewed` those of each renewal that it
    carried out. It `is_waited_for` once somebody asks it while it is silent.
    """

    workers = 1
    out = False
    silent = False
    is_waited_for = False

    def __init__(self, *, ttl: float, clock: Callable[[], float]) -> None:
        super().__init__(ttl=ttl, clock=clock)
        self.asked: list[str] = []
        self.renewed: list[set[str]] = []

    async def acquire(self, lease: Lease) -> Answer:
        """Take slots, as long as the store is not out."""
        self.asked.append(lease.id)
        await self._answer()
        return await super().acquire(lease)

    async def renew(self, leases: Sequence[Lease]) -> None:
        """Let leases live on, as long as the store is not out."""
        await self._answer()
        await super().renew(leases)
        self.renewed.append({lease.id for lease in leases})

    async def snapshot(self) -> Snapshot:
        """Return what is held, as long as the store is not out."""
        await self._answer()
        return await super().snapshot()

    async def note(self, place: str, amounts: Mapping[str, int], *, seconds: int, most: int) -> None:
        """Add to what was noted, as long as the store is not out."""
        await self._answer()
        await super().note(place, amounts, seconds=seconds, most=most)

    async def _answer(self) -> None:
        if self.silent:
            self.is_waited_for = True
            await asyncio.Event().wait()
        if self.out:
            raise StoreError("out")
