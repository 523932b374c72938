"""Waiting for an answer, but not for long."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

LOOKS = 10
"""At an answer within its time. An event loop that was held up looks again when it is back, and so takes
its own lateness for the other's only once: a stall costs one tenth of the time."""

_T = TypeVar("_T")


async def wait(future: asyncio.Future[Any], seconds: float) -> None:
    """Wait until `future` is done, for `seconds` in which this event loop was not held up."""
    for _ in range(LOOKS):
        await asyncio.wait({future}, timeout=seconds / LOOKS)
        if future.done():
            return


async def in_time(call: Awaitable[_T], seconds: float) -> _T:
    """Return what `call` gives. Raises TimeoutError, and cancels it, after `seconds`."""
    task = asyncio.ensure_future(call)
    task.add_done_callback(_look_at)
    try:
        await wait(task, seconds)
        if not task.done():
            raise TimeoutError(f"no answer in {seconds:g} s")
        return task.result()
    finally:
        task.cancel()


def _look_at(task: asyncio.Future[Any]) -> None:
    """Take note of the task's exception, which asyncio would complain about where nobody waits for it."""
    if not task.cancelled():
        task.exception()
