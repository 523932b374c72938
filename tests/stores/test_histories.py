"""Whatever happens, in whatever order, every store does what the reference does, and no slot is lost.

More histories than are needed every day: `HISTORIES=1000 pytest tests/stores/test_histories.py`.
"""

from __future__ import annotations

import os

import pytest

from tests.stores.histories import History
from tests.stores.storages import OneWorker, SharedStorage

SEEDS = range(int(os.environ.get("HISTORIES", "16")))
STEPS = 80


@pytest.mark.parametrize("open_shared", ["host", "redis"], indirect=True)
@pytest.mark.parametrize("seed", SEEDS)
async def test_history(shared_storage: SharedStorage, seed: int) -> None:
    """No history with crashes, losses, and lost or late calls tells a store from the reference."""
    await History(shared_storage, seed, perils=shared_storage).run(STEPS)


@pytest.mark.parametrize("seed", SEEDS)
async def test_history_of_one_worker(seed: int) -> None:
    """No history of one worker by itself tells the store of its process from the reference."""
    await History(OneWorker(), seed).run(STEPS)
