"""Every store tells who holds what, and nobody counts for somebody else."""

from __future__ import annotations

import pytest

from litellm_parallel_limits.limits import Limit, Scope
from litellm_parallel_limits.stores import Store
from tests.samples import lease, limit
from tests.stores.asking import admitted, has_room, holders
from tests.stores.identities import HOSTILE
from tests.stores.storages import Storage


async def test_nothing_held_is_an_empty_snapshot(store: Store) -> None:
    """Where nothing is held a snapshot has no holdings."""
    assert (await store.snapshot()).holdings == ()


async def test_snapshot_tells_all_about_a_holder(storage: Storage) -> None:
    """Each slot tells its scope, lease, worker, model, start and the number it was compared with."""
    store = storage.store("w7")
    wanted = lease(limit(capacity=4), worker="w7", model="gpt-4o: 50% {new}\n", started_ms=1_234)
    await admitted(store, wanted)
    (holding,) = (await storage.store("w8").snapshot()).holdings
    assert holding.scope == limit().scope
    assert (holding.lease, holding.worker, holding.model) == (wanted.id, "w7", wanted.model)
    assert (holding.started_ms, holding.capacity) == (1_234, 4)


@pytest.mark.parametrize("hostile", HOSTILE)
async def test_snapshot_survives_any_name(store: Store, hostile: str) -> None:
    """No model, worker or identity of a client's invention breaks a snapshot."""
    wanted = lease(limit(of=hostile), worker=hostile, model=hostile)
    await admitted(store, wanted)
    assert await holders(store) == {"team": {wanted.id}}


async def test_hostile_identities_share_no_count(store: Store) -> None:
    """Each identity has a count of its own, whatever characters it is made of."""
    held = [await admitted(store, lease(limit(of=hostile))) for hostile in HOSTILE]
    assert not any([await has_room(store, limit(of=hostile)) for hostile in HOSTILE])
    for one in held:
        store.release(one)
    assert await holders(store) == {}


async def test_scopes_share_no_count(store: Store) -> None:
    """The same identity in another limit, dimension or number of dimensions is another scope."""
    user, team = ("user", "x"), ("team", "x")
    scopes = {
        Scope(limit, identities)
        for limit in ("a", "b")
        for identities in ((), (user,), (team,), (user, team), (team, user))
    }
    for scope in scopes:
        await admitted(store, lease(Limit(scope, 1)))
    assert {holding.scope for holding in (await store.snapshot()).holdings} == scopes
