"""What a request holds ends with it, whatever ends it."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest

from litellm_parallel_limits.holder import Holder, current_holder
from litellm_parallel_limits.incoming import Message, Receive, Send
from litellm_parallel_limits.middleware import HolderMiddleware
from tests.asgi import START, Action, Server
from tests.samples import limit

RUN = "a run"
PART: Message = {"type": "http.response.body", "body": b"part", "more_body": True}
LAST: Message = {"type": "http.response.body", "body": b"last"}
STREAM: Message = {**START, "headers": [(b"content-type", b"text/event-stream; charset=utf-8")]}


@pytest.fixture
def server() -> Server:
    """Return a server."""
    return Server()


def sending(server: Server, *messages: Message) -> Action:
    """Return an action that holds a permit and answers with `messages`."""

    async def action(holder: Holder, send: Send) -> None:
        holder.keep(server.permit(), RUN)
        for message in messages:
            await send(message)

    return action


async def test_permit_is_held_until_the_last_message(server: Server) -> None:
    """What is held is given back before the last message is passed on, and not earlier."""
    await server.run(sending(server, START, PART, LAST))
    assert server.sent == [START, PART, LAST]
    assert server.free == [0, 0, 1]


async def test_last_slot_is_handed_back_before_the_client_hears_of_the_end(server: Server) -> None:
    """Where all slots were taken other workers are told first: the client may come to one of them next."""

    async def action(holder: Holder, send: Send) -> None:
        for capacity in (2, 1, 1):
            holder.keep(server.permit(capacity=capacity), RUN)
        for message in (START, PART, LAST):
            await send(message)

    await server.run(action)
    assert server.told == [2]


async def test_slot_is_handed_back_before_an_error_is_answered(server: Server) -> None:
    """What the application cannot answer its server does: the slots are back by then."""

    async def action(holder: Holder, _: Send) -> None:
        holder.keep(server.permit(capacity=1), RUN)
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 (ours)
        await server.run(action)
    assert server.told == [0]


async def test_nobody_waits_where_there_is_room_left(server: Server) -> None:
    """Whose slot was not the last one has its answer at once."""
    await server.run(sending(server, START, PART, LAST))
    assert server.told == []


ENDS = {
    "chat": b"data: [DONE]\n\n",
    "chat, with the last words": b"data: {}\n\ndata: [DONE]\r\n\r\n",
    "messages": b'event: message_stop\ndata: {"type": "message_stop"}\n\n',
    "messages, with the last words": b"event: message_delta\ndata: {}\n\nevent: message_stop\ndata: {}\n\n",
    "responses": b'data: {"type":"response.completed","response":{}}\n\n',
    "responses that name their events": b"event: response.incomplete\ndata: {}\n\n",
    "responses that failed": b'data: {"type": "response.failed"}\n\n',
}

OTHERS = [
    b"",
    b"data: {}\n\n",
    b"data: [DONE]\n\ndata: more",
    b'data: {"text": "data: [DONE]"}\n\n',
    b'data: {"text": "\\nevent: message_stop\\n"}\n\n',
    b'data: {"type":"response.output_text.delta","delta":"{\\"type\\":\\"response.completed\\"}"}\n\n',
    b"event: message_stopped\ndata: {}\n\n",
]


@pytest.mark.parametrize("end", ENDS)
async def test_end_of_an_event_stream_is_the_end(server: Server, end: str) -> None:
    """A client goes on at the last event: what is held is given back before that is passed on."""
    await server.run(sending(server, STREAM, PART, {**PART, "body": ENDS[end]}, LAST))
    assert server.free == [0, 0, 1, 1]


@pytest.mark.parametrize("body", OTHERS)
async def test_other_events_are_not_the_end(server: Server, body: bytes) -> None:
    """No other part of a stream gives anything back, whatever a model says in it."""
    await server.run(sending(server, STREAM, {**PART, "body": body}, LAST))
    assert server.free == [0, 0, 1]


@pytest.mark.parametrize("end", ENDS)
async def test_only_event_streams_have_a_last_event(server: Server, end: str) -> None:
    """A part of any other answer may look like one."""
    await server.run(sending(server, START, {**PART, "body": ENDS[end]}, LAST))
    assert server.free == [0, 0, 1]


async def test_message_without_a_body_is_a_last_one(server: Server) -> None:
    """A body message that says nothing is the end, as ASGI has it."""
    await server.run(sending(server, START, {"type": "http.response.body"}))
    assert server.free == [0, 1]


async def test_parts_may_be_memoryviews(server: Server) -> None:
    """A part that is a view of bytes is passed on like any other."""
    await server.run(sending(server, STREAM, {**PART, "body": memoryview(b"part")}, LAST))
    assert server.free == [0, 0, 1]


async def test_silent_application_gives_back_at_its_end(server: Server) -> None:
    """A request that is never answered ends when the application returns."""
    await server.run(sending(server))
    assert len(server.released) == 1


async def test_exception_gives_back(server: Server) -> None:
    """An application that raises holds nothing any more, and its exception goes on."""

    async def action(holder: Holder, _: Send) -> None:
        holder.keep(server.permit(), RUN)
        raise LookupError

    with pytest.raises(LookupError):
        await server.run(action)
    assert len(server.released) == 1


async def test_cancellation_gives_back(server: Server) -> None:
    """A request that is cancelled holds nothing any more."""

    async def action(holder: Holder, _: Send) -> None:
        holder.keep(server.permit(), RUN)
        await asyncio.Event().wait()

    running = asyncio.create_task(server.run(action))
    await asyncio.sleep(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert len(server.released) == 1


async def test_client_that_is_gone_gives_back(server: Server) -> None:
    """Where the server's send raises, as for a client that left, nothing stays held."""
    server.is_gone = True
    with pytest.raises(ConnectionError):
        await server.run(sending(server, START))
    assert len(server.released) == 1


async def test_each_permit_is_given_back_once(server: Server) -> None:
    """However many permits a request holds, and however it ends, each is released once."""

    async def action(holder: Holder, send: Send) -> None:
        for _ in range(3):
            holder.keep(server.permit(), RUN)
        await send(STREAM)
        await send({**PART, "body": ENDS["chat"]})
        await send(LAST)
        raise LookupError

    with pytest.raises(LookupError):
        await server.run(action)
    assert len({lease.id for lease in server.released}) == len(server.released) == 3


async def test_permit_kept_after_the_end_is_given_back_at_once(server: Server) -> None:
    """Work that is admitted when its request has ended holds nothing."""

    async def action(holder: Holder, send: Send) -> None:
        await send(LAST)
        holder.keep(server.permit(), RUN)
        assert len(server.released) == 1

    await server.run(action)
    assert len(server.released) == 1


async def test_dropped_permits_make_way_for_others(server: Server) -> None:
    """A request may give back what it holds and hold something else, as a fallback does."""
    holder = Holder()
    first, second = server.permit(), server.permit()
    holder.keep(first, RUN)
    holder.drop(RUN)
    holder.keep(second, RUN)
    assert server.released == [first.lease]
    assert holder.scopes == {limit().scope}
    holder.close()
    assert server.released == [first.lease, second.lease]
    assert holder.scopes == frozenset()


async def test_websocket_ends_with_its_close(server: Server) -> None:
    """A websocket's last message is its close."""
    accept, frame, close = ({"type": f"websocket.{kind}"} for kind in ("accept", "send", "close"))
    await server.run(sending(server, accept, frame, close), {"type": "websocket"})
    assert server.free == [0, 0, 1]


async def test_requests_have_holders_of_their_own(server: Server) -> None:
    """Requests that run at the same time hold nothing of each other's."""
    seen: list[Holder] = []

    async def action(holder: Holder, _: Send) -> None:
        await asyncio.sleep(0)
        assert current_holder.get() is holder
        seen.append(holder)

    await asyncio.gather(*(server.run(action) for _ in range(3)))
    assert len(set(map(id, seen))) == 3
    assert current_holder.get() is None


async def test_task_of_a_request_has_its_holder(server: Server) -> None:
    """What a request does in a task of its own is held by the request."""

    async def work() -> None:
        holder = current_holder.get()
        assert holder is not None
        holder.keep(server.permit(), RUN)

    async def action(_: Holder, send: Send) -> None:
        await asyncio.create_task(work())
        await send(START)
        await send(LAST)

    await server.run(action)
    assert server.free == [0, 1]


async def test_lifespan_is_none_of_our_business(server: Server) -> None:
    """What is no request passes through as it is."""
    passed: list[object] = []

    async def app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        passed.extend((scope, receive, send, current_holder.get()))

    scope = {"type": "lifespan"}
    receive, send = server.receive, server.send
    await HolderMiddleware(app)(scope, receive, send)
    assert passed == [scope, receive, send, None]


async def test_last_event_of_a_round_is_not_the_end(server: Server) -> None:
    """Where the provider is called again in the same answer, what is held is held until that ends."""
    round_end = {**PART, "body": ENDS["messages"]}
    await server.run(sending(server, STREAM, round_end, PART, round_end, LAST))
    assert server.sent == [STREAM, round_end, PART, round_end, LAST]
    assert server.free == [0, 0, 0, 1, 1]


async def test_last_event_is_passed_on_where_nothing_follows(server: Server) -> None:
    """An application that ends without a last message has its last event passed on."""
    await server.run(sending(server, STREAM, {**PART, "body": ENDS["chat"]}))
    assert server.sent == [STREAM, {**PART, "body": ENDS["chat"]}]
    assert server.free == [0, 1]
