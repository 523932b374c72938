"""One of several processes that ask the same file for the same slots; it prints when it held each.

Run as `python crowd.py FILE WORKER CAPACITY NUMBER`.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
import time
from pathlib import Path

from litellm_parallel_limits.limits import Admitted, Lease, Limit, Scope
from litellm_parallel_limits.stores.host import HostBackend
from litellm_parallel_limits.stores.shared import SharedStore

TTL = 30.0
PATIENCE = 10.0
AT_ONCE = 4


async def hold(store: SharedStore, worker: str, capacity: int, times: list[tuple[float, float]]) -> None:
    """Hold a slot once, and note from when to when, by the clock of the machine."""
    lease = Lease(secrets.token_hex(8), (Limit(Scope("team"), capacity),), worker)
    if isinstance(await store.acquire(lease), Admitted):
        since = time.monotonic()
        await asyncio.sleep(0)
        times.append((since, time.monotonic()))
        store.release(lease)


async def main(path: str, worker: str, capacity: int, number: int) -> None:
    """Ask, several times at once, until so many leases were held, and print when."""
    backend = HostBackend(Path(path), ttl=TTL, timeout=PATIENCE)
    store = SharedStore(backend, worker=worker, ttl=TTL, timeout=PATIENCE)
    times: list[tuple[float, float]] = []
    while len(times) < number:
        await asyncio.gather(*(hold(store, worker, capacity, times) for _ in range(AT_ONCE)))
    await store.snapshot()
    await backend.close()
    sys.stdout.write(json.dumps(times))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
