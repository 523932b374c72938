"""Where a request begins and ends."""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping
from functools import lru_cache, partial
from typing import Any

from litellm_parallel_limits.holder import Holder, current_holder
from litellm_parallel_limits.incoming import App, Incoming, Message, Receive, Send

STREAM_END = re.compile(
    rb"^(?:data: \[DONE\]\s*\Z"
    rb"|event: (?:message_stop|response\.(?:completed|failed|incomplete))\s*$"
    rb'|data: ?\{"type": ?"(?:message_stop|response\.(?:completed|failed|incomplete))")',
    re.MULTILINE,
)
"""The last event of a stream of OpenAI's chat, of Anthropic's messages, of OpenAI's responses: the provider
has said its last word, and clients go on before the body's own end reaches them. It is kept back until the
next message tells whether it was the last: LiteLLM may call the provider again in the same answer. Nothing
that a model says can look like it: in JSON no line begins within a text."""

REMAINING = b"-remaining-max_parallel_requests"
LIMIT = b"-limit-max_parallel_requests"

LONGEST_NUMBER = 18
"""Digits that are read as a number: anything that a limit may be has fewer."""

MOST_NAMES = 1000
"""Of headers that are remembered: an operator has few limits, and each has two."""

TRY_AGAIN_LATER = 1013
"""The code with which a websocket closes where HTTP would answer 429 (IANA's registry)."""


class HolderMiddleware:
    """Gives every HTTP request and websocket a holder, and closes it when the request is over.

    Pure ASGI, so that it sees the end of every request, whatever made it end.
    """

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Run the request."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        incoming = Incoming(receive)
        holder = Holder(scope.get("path", ""), header=partial(_header, scope), gone=incoming.gone)
        outgoing = _Outgoing(send, holder)
        token = current_holder.set(holder)
        try:
            await self.app(scope, incoming, outgoing)
        except Exception:
            holder.end()
            await holder.handed_back()  # LiteLLM's server answers for it
            raise
        finally:
            incoming.close()
            holder.end()
            current_holder.reset(token)
        await outgoing.pass_on()


class _Outgoing:
    """An ASGI `send` that ends a request before its last message is passed on.

    So a client that has its answer never meets its own slot.
    """

    __slots__ = ("_holder", "_is_event_stream", "_kept_back", "_send")

    def __init__(self, send: Send, holder: Holder) -> None:
        self._send = send
        self._holder = holder
        self._is_event_stream = False
        self._kept_back: Message | None = None

    async def __call__(self, message: Message) -> None:
        """Pass a message on, or keep it back if it may be the last but one."""
        holder = self._holder
        if message["type"] == "http.response.start":
            self._is_event_stream = _is_event_stream(message)
            message = _with_headers(message, holder.headers(message["status"]))
        elif _is_last(message):
            holder.end()
            await holder.handed_back()
            message = _with_reason(message) if holder.is_refused else message
        elif self._may_be_last_event(message):
            self._kept_back = message  # the last event, or only that of a round: what comes next tells
            return
        await self.pass_on()
        await self._send(message)

    async def pass_on(self) -> None:
        """Pass on what is kept back."""
        if self._kept_back is not None:
            message, self._kept_back = self._kept_back, None
            await self._send(message)

    def _may_be_last_event(self, message: Message) -> bool:
        is_held = self._is_event_stream and self._kept_back is None and self._holder.is_holding
        return is_held and _ends_stream(message)


def _header(scope: Mapping[str, Any], name: str) -> str | None:
    wanted = name.encode("latin-1")
    found = (value for key, value in scope.get("headers", ()) if key.lower() == wanted)
    value: bytes | None = next(found, None)
    return None if value is None else value.decode("latin-1")


def _is_last(message: Message) -> bool:
    if message["type"] == "http.response.body":
        return not message.get("more_body")
    return bool(message["type"] == "websocket.close")


def _with_reason(message: Message) -> Message:
    """Close a refused websocket as one that is worth another try: LiteLLM would call it a failure."""
    if message["type"] != "websocket.close":
        return message
    return {**message, "code": TRY_AGAIN_LATER, "reason": "Parallel request limit is full"}


def _is_event_stream(message: Message) -> bool:
    headers = message.get("headers", ())
    return any(
        name.lower() == b"content-type" and value.startswith(b"text/event-stream") for name, value in headers
    )


def _ends_stream(message: Message) -> bool:
    return STREAM_END.search(message.get("body", b"")) is not None


def _with_headers(message: Message, ours: Mapping[str, str]) -> Message:
    """Add ours in place of theirs, but where LiteLLM tells of less room in a limit leave out what we tell."""
    if not ours:
        return message
    added = {_encoded(name): value.encode("latin-1") for name, value in ours.items()}
    theirs = [(name.lower(), value) for name, value in message.get("headers", ())]
    for name, value in theirs:
        if name.endswith(REMAINING) and name in added and _is_less(value, added[name]):
            for told in (name, name.removesuffix(REMAINING) + LIMIT):
                added.pop(told, None)
    return {**message, "headers": [*[pair for pair in theirs if pair[0] not in added], *added.items()]}


def _is_less(theirs: bytes, ours: bytes) -> bool:
    return len(theirs) <= LONGEST_NUMBER and theirs.isdigit() and int(theirs) < int(ours)


@lru_cache(MOST_NAMES)
def _encoded(name: str) -> bytes:
    return name.lower().encode("latin-1")
