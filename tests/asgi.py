"""A server around our middleware, and an application behind it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from litellm_parallel_limits.holder import Holder, current_holder
from litellm_parallel_limits.incoming import Message, Receive, Send
from litellm_parallel_limits.limiter import Permit
from litellm_parallel_limits.limits import Admitted, Lease
from litellm_parallel_limits.middleware import HolderMiddleware
from tests.samples import lease, limit

Action = Callable[[Holder, Send], Awaitable[None]]
"""What the application does with one request."""

START: Message = {"type": "http.response.start", "status": 200, "headers": []}


@dataclass
class Server:
    """A server: what an application sent it, and how many leases were released by then.

    `released` are the leases of its permits that have ended, `free` their number at each message, and
    `told` how many messages there were each time that other workers were told of it.
    A server whose client `is_gone` takes no message.
    """

    released: list[Lease] = field(default_factory=list)
    sent: list[Message] = field(default_factory=list)
    free: list[int] = field(default_factory=list)
    told: list[int] = field(default_factory=list)
    is_gone: bool = False

    def permit(self, *, capacity: int = 2) -> Permit:
        """Return something to hold: the first slot of so many."""

        async def told() -> None:
            self.told.append(len(self.sent))

        return Permit(Admitted(lease(limit(capacity=capacity)), (1,)), self.released.append, told)

    async def run(self, action: Action, scope: MutableMapping[str, Any] | None = None) -> None:
        """Let an application that does `action` serve one request."""

        async def app(_: MutableMapping[str, Any], __: Receive, send: Send) -> None:
            holder = current_holder.get()
            assert holder is not None
            await action(holder, send)

        await HolderMiddleware(app)(scope or {"type": "http"}, self.receive, self.send)

    async def receive(self) -> Message:
        """Return the body of the request."""
        return {"type": "http.request"}

    async def send(self, message: Message) -> None:
        """Take a message, and note how many leases had been released when it came."""
        if self.is_gone:
            raise ConnectionError
        self.sent.append(message)
        self.free.append(len(self.released))

    def headers(self) -> list[tuple[str, str]]:
        """Return the headers of the answer."""
        return [(name.decode(), value.decode()) for name, value in self.sent[0]["headers"]]
