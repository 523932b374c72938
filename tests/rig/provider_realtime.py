"""OpenAI's realtime websocket: it says that a session has begun, and answers each message with one."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

PATH = "/v1/realtime"

Message = MutableMapping[str, Any]

_SESSION = {"id": "sess_1", "object": "realtime.session", "model": "ok", "modalities": ["text"]}
_BEGUN = {"type": "session.created", "event_id": "event_1", "session": _SESSION}
_UPDATED = {"type": "session.updated", "event_id": "event_2", "session": _SESSION}


async def session(
    receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """Serve a websocket until its client leaves."""
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": json.dumps(_BEGUN)})
    while (await receive())["type"] != "websocket.disconnect":
        await send({"type": "websocket.send", "text": json.dumps(_UPDATED)})
