"""A provider of language models that does as its model's name says, and counts what it holds.

A model's name is `behaviour`, `behaviour@seconds`, or either with `:anything` behind. The caller is what
the header `x-rig-caller` says, which LiteLLM passes on, as it does `x-rig-takes`. Behaviours:

    ok           answers at once
    slow         answers after some seconds
    slow-first   sends the headers at once, all else after some seconds
    slow-stream  sends its words evenly over some seconds
    told         takes the seconds that the header `x-rig-takes` says; a stream begins at once
    gated        answers once the caller's gate is open
    gated-half   sends half of the answer, and the rest once the caller's gate is open
    reset        sends half of the answer, and breaks the connection once the caller's gate is open
    hang         never answers
    error-NNN    answers with the status NNN, at once if the name says no seconds

Beside models, the tools of an MCP server (provider_mcp) and realtime sessions (provider_realtime) are
counted: a tool as the model of its name, a session as the model it is with, while it is open. `calls-tool`
is a model that asks for the tool `ok` before it answers.

Control: `GET /count?model=&caller=`, `POST /gate/open?caller=`, `POST /gate/close?caller=` and
`POST /reset`; who does not name a model or a caller means all of them. Each answers with the count.
`GET /history?caller=` answers with the caller's history, `[[moment, in flight], ...]`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl

import uvicorn

from tests.rig import provider_mcp, provider_realtime, wire
from tests.rig.identities import CALLER, TAKES
from tests.rig.ledger import ANY, Ledger
from tests.rig.provider_routes import JSON, Asked, ProviderRoute, asked, route

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

SECONDS = 1.0
WORDS = 3
MANY_WORDS = 20
KEEP_ALIVE = 3600
"""Seconds: a connection that LiteLLM keeps must not be closed just when it writes to it."""


class Gates:
    """Which callers may pass."""

    def __init__(self) -> None:
        self._open: dict[str, bool] = {}
        self._changed = asyncio.Condition()

    def is_open(self, caller: str) -> bool:
        """Whether `caller` may pass: what was said of it, else what was said of every caller."""
        return self._open.get(caller, self._open.get(ANY, False))

    async def put(self, caller: str, *, is_open: bool) -> None:
        """Open or close the gate of `caller`; of every caller, whatever was said before, if it is ANY."""
        async with self._changed:
            if caller == ANY:
                self._open.clear()
            self._open[caller] = is_open
            self._changed.notify_all()

    async def passing(self, caller: str) -> None:
        """Return once `caller` may pass."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.is_open(caller))


@dataclass(frozen=True)
class Call:
    """One request: the route it came by, the model it names, who sent it, and where the answer goes.

    `takes` are the seconds that its header says.
    """

    route: ProviderRoute
    asked: Asked
    caller: str
    takes: float
    send: Send

    @property
    def model(self) -> str:
        """The model's name."""
        return self.asked.model

    @property
    def streams(self) -> bool:
        """Whether the answer comes as a stream of events."""
        return self.route.events is not None and self.asked.streams

    @property
    def behaviour(self) -> str:
        """What the model's name asks for."""
        return self.model.partition(":")[0].partition("@")[0]

    @property
    def seconds(self) -> float:
        """How long that takes."""
        return float(self.model.partition(":")[0].partition("@")[2] or SECONDS)

    def chunks(self, words: int = WORDS) -> Iterator[bytes]:
        """Return the answer's body in the pieces in which it is sent."""
        if self.route.events is not None and self.asked.streams:
            return self.route.events(self.model, words)
        return iter([self.route.whole(self.asked)])

    async def begin(self, status: int = 200) -> None:
        """Send the status and the headers: they go out with the body's first piece, even an empty one."""
        kind = JSON if status >= 400 else "text/event-stream" if self.streams else self.route.kind
        start = {
            "type": "http.response.start",
            "status": status,
            "headers": [(b"content-type", kind.encode())],
        }
        await self.send(start)

    async def write(self, chunk: bytes, *, more: bool = True) -> None:
        """Send a piece of the body."""
        await self.send({"type": "http.response.body", "body": chunk, "more_body": more})

    async def answer(self, *, pause: float = 0, words: int = WORDS) -> None:
        """Send the body, with a `pause` before each piece, and end."""
        for chunk in self.chunks(words):
            await asyncio.sleep(pause)
            await self.write(chunk)
        await self.write(b"", more=False)


async def ok(call: Call) -> None:
    """Answer at once."""
    await call.begin()
    await call.answer()


async def slow(call: Call) -> None:
    """Answer late."""
    await asyncio.sleep(call.seconds)
    await ok(call)


async def slow_first(call: Call) -> None:
    """Answer with headers at once and a late body."""
    await call.begin()
    await call.write(b"")
    await asyncio.sleep(call.seconds)
    await call.answer()


async def slow_stream(call: Call) -> None:
    """Answer little by little."""
    await call.begin()
    await call.answer(pause=call.seconds / MANY_WORDS, words=MANY_WORDS)


async def told(call: Call) -> None:
    """Take as long as the request says: a stream with every word, a whole answer before it.

    With the last word all is done: nothing is in flight any more when the client has it.
    """
    *words, last = call.chunks(MANY_WORDS)
    if not words:
        await asyncio.sleep(call.takes)
    await call.begin()
    for word in words:
        await call.write(word)
        await asyncio.sleep(call.takes / len(words))
    await call.write(last, more=False)


async def hang(call: Call) -> None:
    """Never answer."""
    await asyncio.Event().wait()


async def error(call: Call) -> None:
    """Answer with the error that the model's name ends with."""
    await asyncio.sleep(call.seconds if "@" in call.model else 0)
    status = int(call.behaviour.rpartition("-")[2])
    await call.begin(status)
    await call.write(wire.error(status), more=False)


@dataclass
class Provider:
    """The ASGI application."""

    ledger: Ledger = field(default_factory=Ledger)
    gates: Gates = field(default_factory=Gates)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one request or session."""
        if scope["type"] == "websocket":
            await self._session(scope, receive, send)
        elif scope["path"] == provider_mcp.PATH:
            await self._tool(scope, receive, send)
        elif found := route(scope["path"]):
            said = asked(scope["path"], _header(scope, "content-type"), await _body(receive))
            await self._serve(_call(found, said, scope, send), receive)
        else:
            query = dict(parse_qsl(scope["query_string"].decode()))
            caller = query.get("caller", ANY)
            await self._control(scope["path"], caller)
            await _reply(send, self._counted(scope["path"], query.get("model", ANY), caller))

    async def _session(self, scope: Message, receive: Receive, send: Send) -> None:
        model = dict(parse_qsl(scope["query_string"].decode())).get("model", "")
        with self.ledger.holding(model, _header(scope, CALLER)):
            await provider_realtime.session(receive, send)

    async def _tool(self, scope: Message, receive: Receive, send: Send) -> None:
        body = json.loads(await _body(receive) or b"{}")
        if provider_mcp.is_call(body):
            said = Asked(scope["path"], provider_mcp.tool(body), body)
            await self._serve(_call(provider_mcp.ROUTE, said, scope, send), receive)
        else:
            await _send(send, provider_mcp.answer(body))

    async def _serve(self, call: Call, receive: Receive) -> None:
        behaviours = {
            "ok": ok,
            "calls-tool": ok,
            "slow": slow,
            "slow-first": slow_first,
            "slow-stream": slow_stream,
            "told": told,
            "gated": self._gated,
            "gated-half": self._gated_half,
            "reset": self._reset,
            "hang": hang,
        }
        behave = error if call.behaviour.startswith("error-") else behaviours[call.behaviour]
        with self.ledger.holding(call.model, call.caller) as end:
            await _while_connected(behave(replace(call, send=_ending(call.send, end))), receive)

    async def _gated(self, call: Call) -> None:
        await self.gates.passing(call.caller)
        await ok(call)

    async def _gated_half(self, call: Call) -> None:
        async with self._half(call) as rest:
            for chunk in rest:
                await call.write(chunk)
            await call.write(b"", more=False)

    async def _reset(self, call: Call) -> None:
        async with self._half(call):
            raise ConnectionResetError("as the model's name asks for")  # then uvicorn closes the connection

    @asynccontextmanager
    async def _half(self, call: Call) -> AsyncIterator[list[bytes]]:
        chunks = list(call.chunks())
        half = len(chunks) // 2
        await call.begin()
        for chunk in chunks[:half]:
            await call.write(chunk)
        await self.gates.passing(call.caller)
        yield chunks[half:]

    def _counted(self, path: str, model: str, caller: str) -> object:
        if path == "/history":
            return self.ledger.history(caller).steps
        return asdict(self.ledger.count(model, caller))

    async def _control(self, path: str, caller: str) -> None:
        match path:
            case "/reset":
                self.ledger.forget()
                await self.gates.put(ANY, is_open=False)
            case "/gate/open" | "/gate/close":
                await self.gates.put(caller, is_open=path == "/gate/open")


def _call(found: ProviderRoute, said: Asked, scope: Message, send: Send) -> Call:
    return Call(found, said, _header(scope, CALLER), float(_header(scope, TAKES) or 0), send)


def _header(scope: Message, name: str) -> str:
    headers = dict(scope["headers"])
    value: bytes = headers.get(name.encode(), b"")
    return value.decode(errors="replace")


async def _body(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    return body


def _ending(send: Send, end: Callable[[], None]) -> Send:
    """Return `send` that calls `end` before the last piece goes out: the client may be quicker than us."""

    async def send_or_end(message: Message) -> None:
        if message["type"] == "http.response.body" and not message.get("more_body"):
            end()
        await send(message)

    return send_or_end


async def _reply(send: Send, body: object) -> None:
    await _send(send, json.dumps(body).encode())


async def _send(send: Send, body: bytes | None) -> None:
    headers = [(b"content-type", JSON.encode())]
    status = 202 if body is None else 200
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body or b""})


async def _while_connected(work: Awaitable[None], receive: Receive) -> None:
    async with _task(work) as working, _task(receive()) as leaving:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()


@asynccontextmanager
async def _task(work: Awaitable[Any]) -> AsyncIterator[asyncio.Future[Any]]:
    task = asyncio.ensure_future(work)
    try:
        yield task
    finally:
        task.cancel()


def main() -> None:
    """Serve on the port that the command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    options: dict[str, Any] = {"log_level": "warning", "lifespan": "off", "timeout_keep_alive": KEEP_ALIVE}
    uvicorn.run(Provider(), host="127.0.0.1", port=port, **options)


if __name__ == "__main__":
    main()
