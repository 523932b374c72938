"""An answer carries what was announced of it, once."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from litellm_parallel_limits.holder import Holder
from litellm_parallel_limits.incoming import Message, Send
from tests.asgi import START, Action, Server

OURS = {
    "x-ratelimit-team-limit-max_parallel_requests": "5",
    "x-ratelimit-team-remaining-max_parallel_requests": "3",
}


@pytest.fixture
def server() -> Server:
    """Return a server."""
    return Server()


def answering(headers: Mapping[str, str], message: Message, *, refused: int = 0) -> Action:
    """Return an action that announces `headers` and begins its answer with `message`."""

    async def action(holder: Holder, send: Send) -> None:
        holder.announce(headers, refused=refused)
        await send(message)

    return action


async def test_answer_without_news_is_untouched(server: Server) -> None:
    """Where nothing is announced an answer passes as it is."""
    await server.run(answering({}, START))
    assert server.sent[0] is START


async def test_announced_headers_are_added(server: Server) -> None:
    """The answer carries what was announced beside its own headers, in any case of letters."""
    message = {
        **START,
        "headers": [(b"Content-Type", b"text/plain"), (b"set-cookie", b"a"), (b"set-cookie", b"b")],
    }
    await server.run(answering({"Retry-After": "3"}, message))
    assert server.headers() == [
        ("content-type", "text/plain"),
        ("set-cookie", "a"),
        ("set-cookie", "b"),
        ("retry-after", "3"),
    ]


async def test_announced_header_takes_the_place_of_another(server: Server) -> None:
    """A header that LiteLLM sets as well is sent once, ours."""
    message = {**START, "headers": [(b"Retry-After", b"60")]}
    await server.run(answering({"retry-after": "3"}, message))
    assert server.headers() == [("retry-after", "3")]


async def test_answer_may_have_no_headers(server: Server) -> None:
    """A message without headers, as ASGI allows, is given ours."""
    await server.run(answering({"retry-after": "3"}, {"type": "http.response.start", "status": 429}))
    assert server.headers() == [("retry-after", "3")]


@pytest.mark.parametrize(
    ("theirs", "told"),
    [((10, 2), (10, 2)), ((2, 0), (2, 0)), ((10, 9), (5, 3)), ((10, 10), (5, 3)), ((4, 3), (5, 3))],
)
async def test_header_with_less_room_is_sent(
    server: Server, theirs: tuple[int, int], told: tuple[int, int]
) -> None:
    """Where LiteLLM tells of the same limit, the number and room of the one with less room are sent."""
    names = tuple(name.encode() for name in OURS)
    headers = [(name, str(value).encode()) for name, value in zip(names, theirs, strict=True)]
    await server.run(answering(OURS, {**START, "headers": headers}))
    assert sorted(server.headers()) == sorted(zip(OURS, map(str, told), strict=True))


@pytest.mark.parametrize("nonsense", [b"", b"-1", b"many", "²".encode(), b"\xb2", b"1.5"])
async def test_header_that_is_no_number_is_overruled(server: Server, nonsense: bytes) -> None:
    """A header of that name which is no number says nothing."""
    name = b"x-ratelimit-team-remaining-max_parallel_requests"
    await server.run(answering(OURS, {**START, "headers": [(name, nonsense)]}))
    assert server.headers() == list(OURS.items())


async def test_room_of_other_limits_is_left_alone(server: Server) -> None:
    """What LiteLLM tells of a limit that is not ours stays beside ours."""
    name = "x-ratelimit-api_key-remaining-max_parallel_requests"
    await server.run(answering(OURS, {**START, "headers": [(name.encode(), b"0")]}))
    assert server.headers() == [(name, "0"), *OURS.items()]


@pytest.mark.parametrize(("status", "told"), [(200, False), (400, False), (429, True), (500, False)])
async def test_refusals_headers_are_for_refusals(server: Server, status: int, *, told: bool) -> None:
    """A refusal that did not reach the client, as where a fallback answered, leaves no headers."""
    await server.run(answering({"retry-after": "3"}, {**START, "status": status}, refused=429))
    assert server.headers() == ([("retry-after", "3")] if told else [])


async def test_last_announcement_counts(server: Server) -> None:
    """A fallback's admission takes the place of the refusal before it."""

    async def action(holder: Holder, send: Send) -> None:
        holder.announce({"retry-after": "3"}, refused=429)
        holder.announce(OURS)
        await send(START)

    await server.run(action)
    assert server.headers() == list(OURS.items())


async def test_message_of_the_application_is_not_changed(server: Server) -> None:
    """The application's own message stays as it was."""
    message = {**START, "headers": []}
    await server.run(answering(OURS, message))
    assert message == START
