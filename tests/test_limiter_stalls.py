"""A store that is out for a moment does not let a worker forget what it admitted alone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from litellm_parallel_limits.errors import StoreError
from litellm_parallel_limits.limiter import Limiter, Permit
from litellm_parallel_limits.limits import Answer, Lease, Refused
from litellm_parallel_limits.stores.memory import MemoryStore
from tests.samples import limit


class Stalling(MemoryStore):
    """A store whose next acquisitions fail, and whose renewals wait until they may."""

    def __init__(self) -> None:
        super().__init__(ttl=30)
        self.fails = 0
        self.may_renew = asyncio.Event()
        self.may_renew.set()

    async def acquire(self, lease: Lease) -> Answer:
        """Fail as often as is asked for."""
        if self.fails:
            self.fails -= 1
            raise StoreError("stalled")
        return await super().acquire(lease)

    async def renew(self, leases: Sequence[Lease]) -> None:
        """Renew what was given, when that is possible."""
        await self.may_renew.wait()
        await super().renew(leases)


async def test_who_was_admitted_alone_is_told_before_anyone_new_is_asked_for() -> None:
    """After one failed call the next request meets the slot that was given without the store."""
    store = Stalling()
    limiter = Limiter(store, ttl=30)
    store.fails = 1
    assert isinstance(await limiter.admit([limit()]), Permit)
    assert isinstance(await limiter.admit([limit()]), Refused)


async def test_an_answer_to_another_does_not_end_the_outage() -> None:
    """A request that is answered while another was not leaves it to the renewal to end the outage."""
    store = Stalling()
    limiter = Limiter(store, ttl=30)
    store.fails = 1
    alone, other = await asyncio.gather(limiter.admit([limit()]), limiter.admit([limit("other")]))
    assert isinstance(alone, Permit)
    assert isinstance(other, Permit)
    assert isinstance(await limiter.admit([limit()]), Refused)


async def test_who_is_admitted_alone_during_the_renewal_is_told_as_well() -> None:
    """What is admitted while the store is being told is told before it is asked for anyone new."""
    store = Stalling()
    limiter = Limiter(store, ttl=30)
    store.fails = 1
    await limiter.admit([limit("first")])
    store.may_renew.clear()
    trying = asyncio.create_task(limiter.admit([limit("other")]))
    await asyncio.sleep(0)  # it tries the store
    assert isinstance(await limiter.admit([limit()]), Permit)
    store.may_renew.set()
    assert isinstance(await trying, Permit)
    assert isinstance(await limiter.admit([limit()]), Refused)
