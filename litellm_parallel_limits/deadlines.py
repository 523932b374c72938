"""Waiting for an answer, but not for long."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

LOOKS = 10
"""At an answer within its time. An event loop that was held up looks again when it is back, and so takes
its own lateness for the other's only once: a stall costs one tenth of the time."""

_T = TypeVar("_T")


async def wait(seconds: float, *futures: asyncio.Future[Any]) -> None:
    """Wait until all `futures` are done, for `seconds` in which this event loop was not held up."""
    for _ in range(LOOKS):
        await asyncio.wait(futures, timeout=seconds / LOOKS)
        if all(future.done() for future in futures):
            return


class Deadline:
    """Gives up those futures that are not done in `seconds` in which this event loop was not held up.

    All have as long, so one timer looks at all of them, `LOOKS` times in that time: who waits pays for none
    of its own. `give_up` is called with each that is late, up to a look later.
    """

    def __init__(self, seconds: float, give_up: Callable[[asyncio.Future[Any]], object]) -> None:
        self._seconds = seconds
        self._give_up = give_up
        self._looks = 0
        self._waiting: deque[tuple[int, asyncio.Future[Any]]] = deque()

    def watch(self, future: asyncio.Future[Any]) -> None:
        """Give `future` up if it takes too long."""
        if not self._waiting:
            self._look_later()
        self._waiting.append((self._looks + LOOKS, future))

    def _look_later(self) -> None:
        asyncio.get_running_loop().call_later(self._seconds / LOOKS, self._look)

    def _look(self) -> None:
        while self._waiting and (self._waiting[0][1].done() or self._waiting[0][0] <= self._looks):
            _, future = self._waiting.popleft()
            if not future.done():
                self._give_up(future)
        self._looks += 1
        if self._waiting:
            self._look_later()


async def here_in_time(call: Awaitable[_T], seconds: float) -> _T:
    """Return what `call` gives, which this very task waits for: a turn of a busy event loop takes long.

    Raises TimeoutError after `seconds` in which this event loop was not held up. Then the call is cancelled:
    it must let itself be.
    """
    alarm = _Alarm(seconds)
    try:
        return await call
    except asyncio.CancelledError:
        if alarm.is_why():
            raise TimeoutError(f"no answer in {seconds:g} s") from None
        raise
    finally:
        alarm.stop()


class _Alarm:
    """Cancels the task that sets it, in some seconds, of which it is told each tenth."""

    def __init__(self, seconds: float) -> None:
        self._task = asyncio.current_task()
        self._seconds = seconds / LOOKS
        self._left = LOOKS
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._look)

    def is_why(self) -> bool:
        """Whether the task was cancelled for it, and for nothing else. To be asked once."""
        if self._left or self._task is None:
            return False
        return sys.version_info < (3, 11) or self._task.uncancel() == 0

    def stop(self) -> None:
        """Do not cancel the task."""
        self._timer.cancel()

    def _look(self) -> None:
        self._left -= 1
        if self._left:
            self._timer = asyncio.get_running_loop().call_later(self._seconds, self._look)
        elif self._task is not None:
            self._task.cancel()


async def in_time(
    call: Awaitable[_T], seconds: float, *, undo: Callable[[_T], object] = lambda _: None
) -> _T:
    """Return what `call` gives. Raises TimeoutError after `seconds`.

    Who leaves before, or is cancelled, cancels the call, and lets `undo` take back what it gave nevertheless.
    """
    task = asyncio.ensure_future(call)
    try:
        await wait(seconds, task)
        if not task.done():
            raise TimeoutError(f"no answer in {seconds:g} s")
    except BaseException:
        task.cancel()
        task.add_done_callback(partial(_undo, undo))
        raise
    return task.result()


def _undo(undo: Callable[[_T], object], task: asyncio.Future[_T]) -> None:
    # Its exception must be looked at: asyncio would complain of one that nobody waits for.
    if not task.cancelled() and task.exception() is None:
        undo(task.result())
