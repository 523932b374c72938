"""What a client sends is kept for the application, and its leaving is noticed meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from litellm_parallel_limits.incoming import LEAVING, MOST_MESSAGES, Incoming, Message

BODY: Message = {"type": "http.request", "body": b"all", "more_body": False}
GONE: Message = {"type": "http.disconnect"}


@dataclass
class Client:
    """A client behind a server that bears only one `receive` at a time, and none that is given up."""

    sent: asyncio.Queue[Message | Exception] = field(default_factory=asyncio.Queue)
    reads: int = 0
    is_read: bool = False
    given_up: int = 0

    def send(self, *messages: Message | Exception) -> None:
        """Send messages, or fail."""
        for message in messages:
            self.sent.put_nowait(message)

    async def receive(self) -> Message:
        """Return the next message, as a server does."""
        assert not self.is_read, "two reads at once"
        self.is_read, self.reads = True, self.reads + 1
        try:
            message = await self.sent.get()
        except asyncio.CancelledError:
            self.given_up += 1
            raise
        finally:
            self.is_read = False
        if isinstance(message, Exception):
            raise message
        return message


@asynccontextmanager
async def under_way(*coroutines: Any) -> AsyncIterator[list[asyncio.Task[Any]]]:
    """Have tasks run as far as they come, and end them with the block."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    await turns()
    yield tasks
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def turns() -> None:
    """Let everything run that can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_nothing_is_read_ahead_where_nobody_asks() -> None:
    """Without a watch each read of the application is one of the server's."""
    client = Client()
    incoming = Incoming(client.receive)
    client.send(BODY, GONE)
    assert await incoming() == BODY
    assert client.reads == 1
    assert await incoming() == GONE


@pytest.mark.parametrize("kind", sorted(LEAVING))
async def test_a_client_that_leaves_is_noticed(kind: str) -> None:
    """Of HTTP and of a websocket."""
    client = Client()
    incoming = Incoming(client.receive)
    async with under_way(incoming.gone()) as [gone]:
        assert not gone.done()
        client.send({"type": kind})
        await asyncio.wait_for(gone, 1)


async def test_what_comes_meanwhile_is_kept_in_order() -> None:
    """The application reads afterwards what was read to see whether the client is there, the end too."""
    client = Client()
    incoming = Incoming(client.receive)
    messages: list[Message] = [{"type": "websocket.receive", "text": str(number)} for number in range(3)]
    async with under_way(incoming.gone()) as [gone]:
        client.send(*messages, GONE)
        await asyncio.wait_for(gone, 1)
    assert [await incoming() for _ in range(4)] == [*messages, GONE]


async def test_a_watch_that_ends_leaves_its_read_to_the_application() -> None:
    """No read is given up, and none is made twice: what the client sends next is the application's."""
    client = Client()
    incoming = Incoming(client.receive)
    async with under_way(incoming.gone()):
        pass
    assert client.is_read
    async with under_way(incoming()) as [reading]:
        client.send(BODY)
        assert await asyncio.wait_for(reading, 1) == BODY
    assert (client.reads, client.given_up) == (1, 0)


async def test_the_next_watch_goes_on_with_a_read_that_has_begun() -> None:
    """As a request does that waits several times."""
    client = Client()
    incoming = Incoming(client.receive)
    for _ in range(3):
        async with under_way(incoming.gone()) as [gone]:
            assert not gone.done()
    assert client.reads == 1
    async with under_way(incoming.gone()) as [gone]:
        client.send(GONE)
        await asyncio.wait_for(gone, 1)


async def test_a_client_that_has_left_is_known_at_once() -> None:
    """Whoever has read it."""
    client = Client()
    incoming = Incoming(client.receive)
    client.send(GONE)
    await incoming()
    await asyncio.wait_for(incoming.gone(), 1)
    assert client.reads == 1


async def test_an_application_that_looks_itself_tells_the_watch() -> None:
    """While it reads nobody else does; what it is told the watch knows."""
    client = Client()
    incoming = Incoming(client.receive)
    async with under_way(incoming(), incoming.gone()) as [reading, gone]:
        client.send(GONE)
        assert await asyncio.wait_for(reading, 1) == GONE
        await asyncio.wait_for(gone, 1)
    assert client.reads == 1


async def test_two_watches_share_a_read() -> None:
    """Both are told, and the application has the message once."""
    client = Client()
    incoming = Incoming(client.receive)
    async with under_way(incoming.gone(), incoming.gone()) as watches:
        client.send(BODY, GONE)
        await asyncio.wait_for(asyncio.gather(*watches), 1)
    assert client.reads == 2
    assert [await incoming(), await incoming()] == [BODY, GONE]


async def test_what_is_kept_is_bounded() -> None:
    """Of a client that sends and sends no more is read than the application will be given."""
    client = Client()
    incoming = Incoming(client.receive)
    client.send(*({"type": "websocket.receive", "text": str(number)} for number in range(2 * MOST_MESSAGES)))
    async with under_way(incoming.gone()):
        for _ in range(2 * MOST_MESSAGES):
            await turns()
        assert client.reads == MOST_MESSAGES
    texts = [(await incoming())["text"] for _ in range(2 * MOST_MESSAGES)]
    assert texts == [str(number) for number in range(2 * MOST_MESSAGES)]


async def test_a_server_that_fails_is_one_whose_client_has_left() -> None:
    """And the application meets the error when it reads itself."""
    client = Client()
    incoming = Incoming(client.receive)
    client.send(OSError("broken"), OSError("still broken"))
    await asyncio.wait_for(incoming.gone(), 1)
    with pytest.raises(OSError, match="still broken"):
        await incoming()


async def test_a_request_that_is_over_leaves_no_read_behind() -> None:
    """What was begun to watch the client ends with the request."""
    client = Client()
    incoming = Incoming(client.receive)
    async with under_way(incoming.gone()):
        pass
    incoming.close()
    await turns()
    assert (client.is_read, client.given_up) == (False, 1)
