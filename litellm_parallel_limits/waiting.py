"""Waiting for slots instead of being refused."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from litellm_parallel_limits.errors import GoneError, StoreError
from litellm_parallel_limits.events import Observer, WaitBegan, WaitEnded, WaitOutcome
from litellm_parallel_limits.limits import Admitted, Answer, Limit, Patience, Refused, Scope, Waiting

LOOK_SECONDS = 0.25
"""From one look to the next while a store lets nobody wait, because it is out or has just come back."""

RENEW_SECONDS = 5.0
"""Until one who waits looks whether its limits have other numbers by now; up to twice as long, by chance, so
that those that came together do not look together."""

Try = Callable[[Sequence[Limit], str, Patience | None], Awaitable[Answer | Waiting]]


@dataclass(frozen=True, slots=True)
class Wish:
    """What a request asks for, and how it waits for it.

    `limits` gives what it meets now. `gone` returns when nobody wants its answer any more; it is called
    only if the request waits.
    """

    limits: Callable[[], Awaitable[Sequence[Limit]]]
    patience: Patience
    gone: Callable[[], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class _Outside:
    """Who asked waits here for `limit`, for the store lets nobody wait."""

    limit: Limit
    in_flight: int
    waiting: int


_Waits = Waiting | _Outside


class WaitingRoom:
    """Where those of a worker wait: in the store, or here while the store lets nobody wait.

    `ask` asks for slots, and `give_back` lets go of what it gave or may yet give.
    """

    def __init__(
        self,
        ask: Try,
        give_back: Callable[[Waiting], None],
        observer: Observer,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask = ask
        self._give_back = give_back
        self._observer = observer
        self._clock = clock
        self._turns: set[asyncio.Future[Admitted]] = set()
        self._outside: Counter[Scope] = Counter()
        self._stir: asyncio.Future[None] | None = None
        self._news: asyncio.Future[None] | None = None

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._turns) + self._outside.total()

    def lose(self, error: StoreError) -> None:
        """Let those that wait in the store know that it does not tell them anything any more."""
        for turn in self._turns:
            if not turn.done():
                turn.set_exception(error)
                turn.exception()  # whoever is cancelled meanwhile does not look at it
        self.stir()

    def stir(self) -> None:
        """Let those that wait here look again."""
        if self._stir is not None and not self._stir.done():
            self._stir.set_result(None)

    def look_again(self) -> None:
        """Let everybody who waits look what it meets by now."""
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    @property
    def _told_news(self) -> asyncio.Future[None]:
        if self._news is None or self._news.done():
            self._news = asyncio.get_running_loop().create_future()
        return self._news

    @property
    def _stirred(self) -> asyncio.Future[None]:
        if self._stir is None or self._stir.done():
            self._stir = asyncio.get_running_loop().create_future()
        return self._stir

    async def admit(self, limits: Sequence[Limit], model: str, wish: Wish) -> Answer:
        """Take slots in `limits`, or wait for them as long as limits and patience allow.

        Raises GoneError if who asks has left meanwhile.
        """
        answer = await self._asked(limits, model, wish.patience)
        if isinstance(answer, Admitted | Refused):
            return answer
        began, outcome = self._clock(), "left"
        self._observer(WaitBegan(answer.limit))
        gone = asyncio.ensure_future(wish.gone())
        try:
            final = await self._wait(answer, limits, model, wish, gone)
            outcome = "admitted" if isinstance(final, Admitted) else "refused"
        finally:
            gone.cancel()
            self._observer(WaitEnded(answer.limit, self._clock() - began, cast("WaitOutcome", outcome)))
        return final

    async def _asked(self, limits: Sequence[Limit], model: str, patience: Patience) -> Answer | _Waits:
        """Ask the store; here wait no more than may wait there."""
        answer = await self._ask(limits, model, patience)
        if not isinstance(answer, Refused) or answer.reason == "queue_full":
            return answer
        if answer.limit.wait is None or not answer.limit.may_be_waited_for:
            return answer
        outside = self._outside[answer.limit.scope]
        if outside >= answer.limit.wait.most:
            return replace(answer, reason="queue_full", waiting=outside)
        return _Outside(answer.limit, answer.in_flight, outside)

    async def _wait(
        self, place: _Waits, limits: Sequence[Limit], model: str, wish: Wish, gone: asyncio.Future[None]
    ) -> Answer:
        began = self._clock()
        ends = began + _seconds(place.limit, wish.patience)
        while True:
            admitted = await self._stay(place, limits, wish, gone, ends)
            if admitted is not None:
                return replace(admitted, waited=self._clock() - began)
            if gone.done():
                raise GoneError("the client left while it waited")
            waited = self._clock() - began
            if self._clock() >= ends:
                return Refused(place.limit, place.in_flight, "wait_timeout", place.waiting, waited)
            limits = await wish.limits()
            patience = replace(wish.patience, waited=wish.patience.waited + waited)
            answer = await self._asked(limits, model, patience)
            if isinstance(answer, Admitted | Refused):
                return replace(answer, waited=waited)
            place = answer

    async def _stay(
        self, place: _Waits, limits: Sequence[Limit], wish: Wish, gone: asyncio.Future[None], ends: float
    ) -> Admitted | None:
        """Wait, and return None where it is time to ask again, or to give up."""
        if isinstance(place, Waiting):
            return await self._stay_inside(place, limits, wish, gone, ends)
        await self._stay_outside(place.limit, gone, ends)
        return None

    async def _stay_inside(
        self, place: Waiting, limits: Sequence[Limit], wish: Wish, gone: asyncio.Future[None], ends: float
    ) -> Admitted | None:
        """Wait in the store, and return None if the time is up, the place lost, or the limits changed."""
        turn, is_kept = place.turn, False
        self._turns.add(turn)
        try:
            while not (turn.done() or gone.done()) and (left := ends - self._clock()) > 0:
                seconds = min(left, random.uniform(RENEW_SECONDS, 2 * RENEW_SECONDS))  # noqa: S311
                await _first(turn, gone, self._told_news, seconds=seconds)
                if not (turn.done() or gone.done()) and await wish.limits() != limits:
                    break
            is_kept = turn.done() and turn.exception() is None and not gone.done()
            return turn.result() if is_kept else None
        finally:
            self._turns.discard(turn)
            if not is_kept:
                self._give_back(place)

    async def _stay_outside(self, limit: Limit, gone: asyncio.Future[None], ends: float) -> None:
        """Wait for something to change here, or a moment."""
        self._outside[limit.scope] += 1
        try:
            await _first(self._stirred, gone, seconds=max(0.0, min(LOOK_SECONDS, ends - self._clock())))
        finally:
            self._outside[limit.scope] -= 1
            if not self._outside[limit.scope]:
                del self._outside[limit.scope]


async def _first(*futures: asyncio.Future[Any], seconds: float) -> None:
    """Return when one of `futures` is done, or so many `seconds` are over."""
    await asyncio.wait(futures, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)


def _seconds(limit: Limit, patience: Patience) -> float:
    """Return for how many seconds more a request waits for `limit`."""
    most = limit.wait.seconds if limit.wait is not None else math.inf
    return min(patience.seconds, most - patience.waited)
