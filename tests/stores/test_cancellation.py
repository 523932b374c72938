"""In every store a request that gives up holds nothing."""

from __future__ import annotations

import asyncio

import pytest

from litellm_parallel_limits.limits import Admitted, Lease
from litellm_parallel_limits.stores import Store
from tests.samples import lease, limit
from tests.stores.asking import has_room, holders, turns


@pytest.mark.parametrize("number", range(12))
async def test_cancelled_request_holds_nothing(store: Store, number: int) -> None:
    """A request cancelled at any moment of its admission has no slot, and its slot is free at once."""
    limits = (limit("user"), limit("team"))
    await _cancelled(store, lease(*limits), number)
    assert await has_room(store, *limits)
    assert await holders(store) == {}


@pytest.mark.parametrize("number", range(6))
async def test_cancelled_request_harms_nobody_else(store: Store, number: int) -> None:
    """A request cancelled at any moment takes nothing from those asked for at the same time."""
    others = [lease(limit(capacity=9)) for _ in range(2)]
    waiting = [asyncio.create_task(store.acquire(other)) for other in others]
    await _cancelled(store, lease(limit(capacity=9)), number)
    answers = await asyncio.gather(*waiting)
    assert [isinstance(answer, Admitted) for answer in answers] == [True, True]
    assert await holders(store) == {"team": {other.id for other in others}}


async def _cancelled(store: Store, wanted: Lease, number: int) -> None:
    """Ask for a lease and give up after so many turns; one that was granted before is given back."""
    asking = asyncio.create_task(store.acquire(wanted))
    await turns(number)
    if not asking.cancel():
        store.release(wanted)
    await asyncio.gather(asking, return_exceptions=True)
