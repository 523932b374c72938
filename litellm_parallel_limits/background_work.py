"""Which requests go on after their answer, and when that work ends.

There is one such kind: `/v1/responses` with `background: true`, where LiteLLM polls (`polling_via_cache`). It
answers with an id at once, and a task of its own asks the provider and writes what comes to Redis. Cancelling
or deleting the response changes only what Redis says: the task works on. Its end is the end of the work,
whatever made it end; no hook of LiteLLM's is called on every such way.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from typing import Any

CALL_TYPE = "aresponses"

COROUTINE = "background_streaming_task"
"""LiteLLM's, in `proxy/response_polling`, since 1.81; its argument `data` is the request as hooks saw it."""

TOLD_BY = "litellm_logging_obj"
"""What tells one request from all others in `data`. Not its id: clients can choose it."""

_working: set[asyncio.Task[Any]] = set()
"""LiteLLM keeps no reference to its tasks: one that nobody holds may vanish, and with it its end."""


def work(data: Mapping[str, Any], call_type: str) -> object | None:
    """Return what tells the work of a request that may go on after its answer; None if it cannot.

    `data` and `call_type` are the request as LiteLLM's pre-call hooks see it.
    """
    return data.get(TOLD_BY) if call_type == CALL_TYPE and data.get("background") else None


def ends(work: object, then: Callable[[], None]) -> bool:
    """Call `then` once when `work` ends, and return True; return False if nothing goes on.

    To be asked when the answer is over: by then LiteLLM has begun the work, if it does it by itself.
    """
    task = next((task for task in asyncio.all_tasks() if _does(task, work)), None)
    if task is None:
        return False
    _working.add(task)
    task.add_done_callback(_working.discard)
    task.add_done_callback(lambda _: then())
    return True


def _does(task: asyncio.Task[Any], work: object) -> bool:
    coroutine = task.get_coro()
    if not inspect.iscoroutine(coroutine) or coroutine.__name__ != COROUTINE:
        return False
    data = inspect.getcoroutinelocals(coroutine).get("data")
    return isinstance(data, Mapping) and data.get(TOLD_BY) is work
