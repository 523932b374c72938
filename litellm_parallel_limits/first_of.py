"""The first of several that gives something."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

from litellm_parallel_limits.answers import Refusal
from litellm_parallel_limits.limiter import Permit

_Name = TypeVar("_Name")


async def first_permit(
    asking: Mapping[_Name, Coroutine[Any, Any, Permit | Refusal]],
) -> tuple[_Name, Permit | Refusal]:
    """Return the first permit that one of those `asking` is given, else the last refusal.

    The others ask no more, and what they were given meanwhile is given back.
    """
    tasks = {asyncio.ensure_future(one): name for name, one in asking.items()}
    pending, found = set(tasks), None
    try:
        while found is None or (pending and isinstance(found.result(), Refusal)):
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            found = min(done, key=lambda task: isinstance(task.result(), Refusal))
        return tasks[found], found.result()
    finally:
        for task in tasks:
            if task is not found:
                task.cancel()
                task.add_done_callback(_give_back)


def _give_back(task: asyncio.Future[Permit | Refusal]) -> None:
    if not task.cancelled() and task.exception() is None and isinstance(permit := task.result(), Permit):
        permit.release()
