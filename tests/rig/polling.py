"""Waiting for a state of the world, never for a time."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable


async def until(
    holds: Callable[[], bool | Awaitable[bool]], seconds: float, explain: Callable[[], object]
) -> None:
    """Return once `holds`. Raises AssertionError with what `explain` says if it never does."""
    deadline = time.monotonic() + seconds
    while not (await answer if inspect.isawaitable(answer := holds()) else answer):
        if time.monotonic() > deadline:
            raise AssertionError(f"not so within {seconds} s: {explain()}")
        await asyncio.sleep(0.02)
