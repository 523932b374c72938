"""Work that goes on when the request that began it has ended."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import Context
from typing import Any, TypeVar

_T = TypeVar("_T")


def start(work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
    """Return `work` as a task that knows nothing of the request, and keeps nothing of it alive."""
    return Context().run(asyncio.get_running_loop().create_task, work)
