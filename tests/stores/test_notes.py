"""What workers note is added up in every store, and forgotten."""

from __future__ import annotations

import pytest

from litellm_parallel_limits.stores import HISTORY_SECONDS, Store
from tests.stores.storages import OpenStorage, SharedStorage, in_file, in_memory

HOSTILE = "refused:2:team;team=%3Cscript%3E"


async def test_what_is_noted_is_added_up(store: Store) -> None:
    """Amounts of one name in one step are a sum."""
    await store.note(7, {"held:": 2, HOSTILE: 1})
    await store.note(7, {"held:": 3})
    await store.note(8, {"held:": 100})
    assert list(await store.noted([6, 7])) == [{}, {"held:": 5, HOSTILE: 1}]


async def test_all_steps_can_be_read_at_once(store: Store) -> None:
    """However many steps are asked for, each has its own sums, in their order."""
    for step in range(0, 180, 20):
        await store.note(step, {"held:": step + 1})
    noted = await store.noted(range(180))
    assert {step: sums["held:"] for step, sums in enumerate(noted) if sums} == {
        step: step + 1 for step in range(0, 180, 20)
    }


async def test_workers_note_together(shared_storage: SharedStorage) -> None:
    """What two workers note in a step is one sum, whichever of them is asked."""
    for worker in ("w1", "w2"):
        await shared_storage.store(worker).note(7, {"held:": 4})
    for worker in ("w1", "w2"):
        assert list(await shared_storage.store(worker).noted([7])) == [{"held:": 8}]


@pytest.mark.parametrize("open_here", [in_memory, in_file], ids=["memory", "host"])
async def test_nothing_is_noted_for_ever(open_here: OpenStorage) -> None:
    """After its time what was noted is gone."""
    async with open_here() as storage:
        store = storage.store()
        await store.note(7, {"held:": 4})
        await storage.age(HISTORY_SECONDS + 1)
        await store.note(8, {"held:": 1})
        assert list(await store.noted([7])) == [{}]
