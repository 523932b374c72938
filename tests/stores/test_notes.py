"""What workers note is added up in every store, bounded, and forgotten."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from litellm_parallel_limits.stores import Store
from tests.stores.storages import OpenStorage, SharedStorage, in_file, in_memory

HOSTILE = "2:team;team=%3Cscript%3E"
SECONDS = 900


async def note(store: Store, place: str, amounts: Mapping[str, int], most: int = 100) -> None:
    """Note something."""
    await store.note(place, amounts, seconds=SECONDS, most=most)


async def test_what_is_noted_is_added_up(store: Store) -> None:
    """Amounts of one name at one place are a sum."""
    await note(store, "a", {"held:": 2, HOSTILE: 1})
    await note(store, "a", {"held:": 3})
    await note(store, "b", {"held:": 100})
    assert list(await store.noted(["none", "a"])) == [{}, {"held:": 5, HOSTILE: 1}]


async def test_all_places_can_be_read_at_once(store: Store) -> None:
    """However many places are asked for, each has its own sums, in their order."""
    for step in range(0, 180, 20):
        await note(store, f"past-{step}", {"held:": step + 1})
    noted = await store.noted([f"past-{step}" for step in range(180)])
    assert {step: sums["held:"] for step, sums in enumerate(noted) if sums} == {
        step: step + 1 for step in range(0, 180, 20)
    }


async def test_names_are_bounded(store: Store) -> None:
    """Of more names than there may be the first are kept, and go on being added to."""
    await note(store, "a", {f"name-{number}": 1 for number in range(150)}, most=10)
    await note(store, "a", {"name-3": 1, "late": 1}, most=10)
    (noted,) = await store.noted(["a"])
    assert len(noted) == 10
    assert noted["name-3"] == 2


async def test_workers_note_together(shared_storage: SharedStorage) -> None:
    """What two workers note at a place is one sum, whichever of them is asked."""
    for worker in ("w1", "w2"):
        await note(shared_storage.store(worker), "a", {"held:": 4})
    for worker in ("w1", "w2"):
        assert list(await shared_storage.store(worker).noted(["a"])) == [{"held:": 8}]


@pytest.mark.parametrize("open_here", [in_memory, in_file], ids=["memory", "host"])
async def test_nothing_is_noted_for_ever(open_here: OpenStorage) -> None:
    """After its time what was noted is gone."""
    async with open_here() as storage:
        store = storage.store()
        await note(store, "a", {"held:": 4})
        await storage.age(SECONDS + 1)
        await note(store, "b", {"held:": 1})
        assert list(await store.noted(["a"])) == [{}]
