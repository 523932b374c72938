"""Those of a worker that wait, and how they are told that their turn has come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Container, Sequence
from contextlib import aclosing

from litellm_parallel_limits.background import start
from litellm_parallel_limits.deadlines import wait
from litellm_parallel_limits.errors import StoreError
from litellm_parallel_limits.limits import Admitted, Lease
from litellm_parallel_limits.stores.exchange import Ask, Backend, Grant

DEAF_SECONDS = 2.0
"""Without a word of the backend, until nobody waits for one any more: there is one twice a second."""

IDLE_SECONDS = 30.0
"""Without anybody who waits, until the backend is no longer listened to."""


class Turns:
    """Listens to `backend` while anybody waits in `worker`; after a failure anew, in `pause` seconds."""

    def __init__(self, backend: Backend, worker: str, *, pause: float) -> None:
        self._backend = backend
        self._worker = worker
        self._pause = pause
        self._expected: dict[str, tuple[Ask, asyncio.Future[Admitted]]] = {}
        self._listening: asyncio.Task[None] | None = None
        self._heard_at = 0.0
        self._heard: asyncio.Future[None] | None = None
        self._wanted_at = 0.0

    def __bool__(self) -> bool:
        """Whether anybody waits."""
        return bool(self._expected)

    def are_told(self) -> bool:
        """Whether the backend is being listened to."""
        self._wanted_at = time.monotonic()
        return self._listening is not None and not self._listening.done() and not self._is_deaf()

    async def will_be_told(self, seconds: float) -> bool:
        """Listen to the backend, and return whether it could be heard within so many `seconds`."""
        self._wanted_at = time.monotonic()
        if self._listening is None or self._listening.done():
            self._heard = asyncio.get_running_loop().create_future()
            self._listening = start(self._listen())
        if self._heard is not None:
            await wait(seconds, self._heard)
        return not self._is_deaf()

    def expect(self, ask: Ask) -> asyncio.Future[Admitted]:
        """Return what the lease is given when its turn comes, if it can wait."""
        turn: asyncio.Future[Admitted] = asyncio.get_running_loop().create_future()
        if ask.patience is not None:
            self._expected[ask.lease.id] = (ask, turn)
        return turn

    def forget(self, lease: Lease) -> Ask | None:
        """Expect no turn of the lease any more, and return what it asked for if one was expected."""
        ask, _ = self._expected.pop(lease.id, (None, None))
        return ask

    def lose(self, error: StoreError, spare: Container[str] = ()) -> None:
        """Let everybody know who waits that their place is lost, but for those with the ids to `spare`."""
        for id_, (_, turn) in self._expected.items():
            if id_ not in spare and not turn.done():
                turn.set_exception(error)
                turn.exception()  # not everybody looks at it: some have not been told yet that they wait

    async def _listen(self) -> None:
        while self._is_wanted():
            try:
                await self._listen_on()
            except Exception:  # noqa: BLE001 (of redis-py, SQLite: the calls beside it tell what is wrong)
                await asyncio.sleep(self._pause)
            if self._expected and self._is_deaf():
                self.lose(StoreError("nobody tells whose turn it is"))

    async def _listen_on(self) -> None:
        async with aclosing(self._backend.grants(self._worker)) as told:
            async for grants in told:
                self._heard_at = time.monotonic()
                if self._heard is not None and not self._heard.done():
                    self._heard.set_result(None)
                self._tell(grants)
                if not self._is_wanted():
                    return

    def _tell(self, grants: Sequence[Grant]) -> None:
        for grant in grants:
            ask, turn = self._expected.pop(grant.id, (None, None))
            if ask is not None and turn is not None and not turn.done():
                turn.set_result(grant.to(ask.lease))

    def _is_wanted(self) -> bool:
        return bool(self._expected) or time.monotonic() - self._wanted_at < IDLE_SECONDS

    def _is_deaf(self) -> bool:
        return time.monotonic() - self._heard_at > DEAF_SECONDS
