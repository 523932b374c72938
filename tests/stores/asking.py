"""What is asked of a store in most tests."""

from __future__ import annotations

import asyncio

from litellm_parallel_limits.errors import LeasesLostError, StoreError
from litellm_parallel_limits.limits import Admitted, Lease, Limit
from litellm_parallel_limits.stores import Store
from tests.samples import lease


async def admitted(store: Store, lease: Lease) -> Lease:
    """Return `lease` as the store grants it."""
    answer = await store.acquire(lease)
    assert isinstance(answer, Admitted), answer
    return answer.lease


async def renewed(store: Store, *leases: Lease) -> None:
    """Renew leases as a worker does: once more where some were lost meanwhile."""
    try:
        await store.renew(leases)
    except LeasesLostError:
        await store.renew(leases)


async def answers(store: Store) -> bool:
    """Whether the store answers. It is told that everything was renewed."""
    try:
        await renewed(store)
    except StoreError:
        return False
    return True


async def has_room(store: Store, *limits: Limit) -> bool:
    """Whether a lease of these limits would be admitted; they are left as they were."""
    tried = lease(*limits)
    answer = await store.acquire(tried)
    store.release(tried)
    return isinstance(answer, Admitted)


async def holders(store: Store) -> dict[str, set[str]]:
    """Return the ids of the leases that have a slot, by the name of the limit."""
    found: dict[str, set[str]] = {}
    for holding in (await store.snapshot()).holdings:
        found.setdefault(holding.scope.limit, set()).add(holding.lease)
    return found


async def turns(number: int) -> None:
    """Let everybody else in the event loop go on so many times."""
    for _ in range(number):
        await asyncio.sleep(0)
