"""Work that goes on after the answer of its request."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from litellm_parallel_limits import background_work


async def background_streaming_task(polling_id: str, data: Mapping[str, Any], done: asyncio.Event) -> None:
    """LiteLLM's coroutine of that name, as far as it is looked at."""
    await done.wait()
    if data.get("fails"):
        raise OSError(polling_id)


def request(**data: object) -> dict[str, Any]:
    """Return a request for a background response as LiteLLM's hooks see it."""
    return {"model": "gpt-4", "background": True, "litellm_logging_obj": object(), **data}


def begin(data: Mapping[str, Any]) -> tuple[asyncio.Task[None], asyncio.Event]:
    """Let LiteLLM begin the work of a request."""
    done = asyncio.Event()
    return asyncio.create_task(background_streaming_task("poll_1", data={**data}, done=done)), done


def work_of(data: Mapping[str, Any]) -> object:
    """Return what tells the work of a request that has some."""
    work = background_work.work(data, "aresponses")
    assert work is not None
    return work


@pytest.mark.parametrize("how", ["it succeeds", "it fails", "it is cancelled"])
async def test_the_end_is_told_once(how: str) -> None:
    """However the work ends, what was to be done then is done once."""
    data, ended = request(fails=how == "it fails"), list[str]()
    task, done = begin(data)
    assert background_work.ends(work_of(data), lambda: ended.append("ended"))
    assert not ended
    if how == "it is cancelled":
        task.cancel()
    done.set()
    await asyncio.wait({task})
    await asyncio.sleep(0)
    assert ended == ["ended"]
    assert task.cancelled() or bool(task.exception()) == (how == "it fails")


async def test_work_of_others_is_not_waited_for() -> None:
    """A request whose work never began, or has ended, is over; what another's does is its own."""
    data, other = request(), request()
    task, done = begin(other)
    assert not background_work.ends(work_of(data), lambda: None)
    done.set()
    await task
    assert not background_work.ends(work_of(other), lambda: None)


@pytest.mark.parametrize(
    ("data", "call_type"),
    [
        (request(background=False), "aresponses"),
        ({"model": "gpt-4"}, "aresponses"),
        (request(), "acompletion"),
    ],
)
def test_most_requests_have_no_such_work(data: Mapping[str, Any], call_type: str) -> None:
    """Only a response that is asked for in the background may go on after the answer."""
    assert background_work.work(data, call_type) is None
