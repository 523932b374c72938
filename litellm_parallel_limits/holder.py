"""What a request holds, from its first byte to its last."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from litellm_parallel_limits import background_work
from litellm_parallel_limits.limiter import Permit
from litellm_parallel_limits.limits import Patience, Scope
from litellm_parallel_limits.sources import Call


async def never() -> None:
    """Never return: there is nobody who could leave."""
    await asyncio.Event().wait()


Owner = object
"""On whose account something is held: whoever has the same lets go of it."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a run through LiteLLM's pre-call hooks asks for: one call, or one for each of its models.

    The request's own runs are equal, those of calls nested in it are like no other. `id` is LiteLLM's of
    the call, `model` the name it asks for, `key_name` what its key may be called in public. With `patience`
    it may wait, and `again` gives the calls as LiteLLM's records describe them by now.
    """

    run: Owner = field(default_factory=object)
    id: str | None = None
    calls: tuple[Call, ...] = (Call(),)
    model: str = ""
    key_name: str = ""
    patience: Callable[[], Patience] | None = None
    again: Callable[[], Awaitable[tuple[Call, ...]]] | None = None


class Holder:
    """What one ASGI request holds, and the headers that its answer is given. Closing it twice is harmless.

    `path` is the request's, `run` its own run through LiteLLM's pre-call hooks, `asked` what the last run
    asked for, and `routed` whether the router has begun to choose for it. `attempts` are what the router
    tries at the same time: for each the deployments it may go to, and the slot that it holds there on its
    own account, if any. `turned_away` is the error that the router was last refused with. `work` tells what
    may go on after the answer. `header` gives a header of the request, `gone` returns when its client has
    left, and `began` is when it came, in seconds of the monotonic clock.
    """

    __slots__ = (
        "_closed",
        "_ended",
        "_headers",
        "_permits",
        "_refused",
        "_released",
        "asked",
        "attempts",
        "began",
        "gone",
        "header",
        "path",
        "routed",
        "run",
        "turned_away",
        "work",
    )

    def __init__(
        self,
        path: str = "",
        *,
        header: Callable[[str], str | None] = lambda _: None,
        gone: Callable[[], Coroutine[Any, Any, None]] = never,
    ) -> None:
        self.path = path
        self.began = time.monotonic()
        self.header = header
        self.gone = gone
        self.run: Owner | None = None
        self.asked: Asked | None = None
        self.routed = False
        self.attempts: dict[Owner, dict[str, Permit | None]] = {}
        self.turned_away: Exception | None = None
        self.work: object | None = None
        self._permits: list[tuple[Permit, Owner]] = []
        self._released: list[Permit] = []
        self._headers: Mapping[str, str] = {}
        self._refused = 0
        self._closed = False
        self._ended = False

    @property
    def is_closed(self) -> bool:
        """Whether this request has ended: what it would hold is given back at once."""
        return self._closed

    @property
    def is_refused(self) -> bool:
        """Whether the answer is to be a refusal."""
        return self._refused != 0

    @property
    def is_holding(self) -> bool:
        """Whether this request has a slot anywhere."""
        return bool(self._permits)

    def holds_for_others(self, owner: Owner) -> bool:
        """Whether something is held that is not on the account of `owner`."""
        return any(taken_by != owner for _, taken_by in self._permits)

    @property
    def scopes(self) -> frozenset[Scope]:
        """The scopes in which this request has a slot."""
        return _scopes(permit for permit, _ in self._permits)

    @property
    def scopes_of_runs(self) -> frozenset[Scope]:
        """The scopes in which a slot is held that is no attempt's of the router."""
        return _scopes(permit for permit, taken_by in self._permits if taken_by is not permit)

    def keep(self, permit: Permit, owner: Owner) -> None:
        """Hold `permit`, which `owner` took, until this request ends; if it has, give it back at once."""
        self._permits.append((permit, owner))
        if self._closed:
            self.close()

    def drop(self, owner: Owner) -> None:
        """Give back what `owner` took."""
        if not self._permits:
            return
        for permit, taken_by in self._permits:
            if taken_by == owner:
                permit.release()
        self._permits = [(permit, taken_by) for permit, taken_by in self._permits if taken_by != owner]

    def end(self) -> None:
        """Give back what is held now that the answer is over, or when the work ends that goes on after it."""
        if self._ended:
            return
        self._ended = True
        if self.work is None or not background_work.ends(self.work, self.close):
            self.close()

    def close(self) -> None:
        """Give back what is held, now and from now on."""
        self._closed = True
        self.attempts.clear()  # their tasks may be waited for
        while self._permits:
            permit, _ = self._permits.pop()
            permit.release()
            self._released.append(permit)

    async def handed_back(self) -> None:
        """Return once other workers can have what was held, if it took the last slot of a limit.

        So a client that sends one request after another never meets its own slot, whichever worker it asks.
        """
        last = next((permit for permit in self._released if permit.admitted.took_last), None)
        self._released.clear()
        if last is not None:
            await last.handed_back()

    def announce(self, headers: Mapping[str, str], *, refused: int = 0) -> None:
        """Let the answer carry `headers`; those of a refusal only where the answer is one of that status."""
        self._headers, self._refused = headers, refused

    def announce_also(self, headers: Mapping[str, str]) -> None:
        """Let the answer carry these beside what it carries; where it is to be a refusal it does not."""
        if not self._refused:
            self._headers = {**self._headers, **headers}

    def headers(self, status: int) -> Mapping[str, str]:
        """Return what an answer of this `status` is to carry."""
        return {} if self._refused not in {0, status} else self._headers


def _scopes(permits: Iterable[Permit]) -> frozenset[Scope]:
    return frozenset(limit.scope for permit in permits for limit in permit.lease.limits)


current_holder: ContextVar[Holder | None] = ContextVar("litellm_parallel_limits_holder", default=None)
