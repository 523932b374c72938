"""Who waits for an answer gets it in time, or leaves nothing behind."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Any

import pytest

from litellm_parallel_limits.deadlines import LOOKS, Deadline, here_in_time, in_time

given_back: list[str] = []


async def answer(turns: int) -> str:
    """Return an answer after some turns of the event loop, and not be put off by a cancellation."""
    for _ in range(turns):
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0)
    return "answer"


async def test_answer_in_time_is_returned() -> None:
    """Who has its answer in time gives nothing back."""
    given_back.clear()
    assert await in_time(answer(3), 1, undo=given_back.append) == "answer"
    await asyncio.sleep(0)
    assert given_back == []


async def test_no_answer_is_an_error() -> None:
    """Who has no answer in time is told so, and what it waited for is cancelled."""
    silent = asyncio.Event()
    waiting = asyncio.create_task(silent.wait())
    with pytest.raises(TimeoutError, match=r"no answer in 0\.01 s"):
        await in_time(waiting, 0.01)
    await asyncio.sleep(0)
    assert waiting.cancelled()


async def test_error_is_raised_as_it_is() -> None:
    """What fails in time fails for whoever waits."""
    with pytest.raises(ZeroDivisionError):
        await in_time(asyncio.to_thread(lambda: 1 / 0), 1)


@pytest.mark.parametrize("turns", range(1, 8))
async def test_cancelled_wait_gives_back_what_comes(turns: int) -> None:
    """Who is cancelled at any moment has its answer, or it is given back: never neither, never both."""
    given_back.clear()
    waiting = asyncio.create_task(in_time(answer(3), 1, undo=given_back.append))
    for _ in range(turns):
        await asyncio.sleep(0)
    waiting.cancel()
    (had,) = await asyncio.gather(waiting, return_exceptions=True)
    for _ in range(8):
        await asyncio.sleep(0)
    assert (had == "answer") != (given_back == ["answer"])


@pytest.mark.parametrize("waited", [in_time, here_in_time])
async def test_an_event_loop_that_was_held_up_looks_again(waited: Any) -> None:
    """An answer that was there in time is seen, however late this process looks."""
    answering = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.06, answering.set_result, "answer")
    asyncio.get_running_loop().call_later(0.01, time.sleep, 0.3)
    assert await waited(answering, 0.1) == "answer"


async def test_a_call_of_this_task_is_given_up() -> None:
    """Who waits itself is told so as well, goes on, and is not cancelled by it."""
    silent = asyncio.get_running_loop().create_future()
    with pytest.raises(TimeoutError, match=r"no answer in 0\.01 s"):
        await here_in_time(silent, 0.01)
    assert silent.cancelled()
    await asyncio.sleep(0.02)


async def test_a_task_that_waits_itself_can_be_cancelled() -> None:
    """That is no deadline, and nothing is left of it."""
    silent = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(here_in_time(silent, 0.05))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert silent.cancelled()


def given_up(late: list[asyncio.Future[Any]], seconds: float) -> Deadline:
    """Return a deadline that puts what is late into a list."""

    def give_up(future: asyncio.Future[Any]) -> None:
        late.append(future)
        future.set_result(None)

    return Deadline(seconds, give_up)


async def test_late_futures_are_given_up_in_their_order() -> None:
    """Each has its time from when it came; what is done meanwhile is left alone."""
    late: list[asyncio.Future[Any]] = []
    deadline, loop = given_up(late, 0.1), asyncio.get_running_loop()
    first, done, second = (loop.create_future() for _ in range(3))
    began = time.monotonic()
    for future in (first, done):
        deadline.watch(future)
    done.set_result(None)
    await asyncio.sleep(0.05)
    deadline.watch(second)
    await first
    assert time.monotonic() - began >= 0.1
    assert late == [first]
    await second
    assert time.monotonic() - began >= 0.15
    assert late == [first, second]


async def test_deadline_of_nobody_costs_nothing() -> None:
    """When nothing is waited for no timer runs, and the next that comes has its whole time."""
    late: list[asyncio.Future[Any]] = []
    deadline, loop = given_up(late, 0.05), asyncio.get_running_loop()
    for _ in range(2):
        done, future = loop.create_future(), loop.create_future()
        deadline.watch(done)
        done.set_result(None)
        await asyncio.sleep(0.02)
        assert not deadline._waiting  # noqa: SLF001
        began = time.monotonic()
        deadline.watch(future)
        await future
        assert time.monotonic() - began >= 0.05


async def test_loop_that_was_held_up_looks_again() -> None:
    """What is done while the event loop was held up is not late, however long that took."""
    late: list[asyncio.Future[Any]] = []
    deadline, loop = given_up(late, 0.1), asyncio.get_running_loop()
    future = loop.create_future()
    deadline.watch(future)
    time.sleep(0.3)  # noqa: ASYNC251 (what is tested)
    loop.call_later(0.1 / LOOKS, future.set_result, "answer")
    assert await future == "answer"
    assert late == []
