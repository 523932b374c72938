"""How a request comes to hold a slot in every limit that it meets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from litellm_parallel_limits.answers import Headers, Refusal, admitted_headers
from litellm_parallel_limits.errors import TooManyLimitsError
from litellm_parallel_limits.gate import Gate
from litellm_parallel_limits.holder import Asked, Holder
from litellm_parallel_limits.limiter import Permit
from litellm_parallel_limits.limits import Admitted, Limit, Patience, Scope
from litellm_parallel_limits.policy import MOST_SCOPES, Policy
from litellm_parallel_limits.sources import Call
from litellm_parallel_limits.waiting import Wish


class Admission:
    """Takes the slots of requests, each on the account of its run through LiteLLM's hooks."""

    def __init__(self, policy: Callable[[], Policy], gate: Gate) -> None:
        self._policy = policy
        self._gate = gate

    async def admit(self, holder: Holder, asked: Asked) -> Refusal | None:
        """Hold a slot in each limit that `asked` meets, or none; what its run held before gives way.

        Raises TooManyLimitsError.
        """
        if asked.run == holder.run:
            holder.asked = asked
        else:
            asked = replace(asked, patience=None)  # nested in another call, with whose slots it would wait
        holder.drop(asked.run)
        announce(holder, asked, {})
        return await self._take(holder, asked, self._wanted(holder, asked.calls))

    def patience(self, call: Call, seconds: float) -> Patience:
        """Return how `call` waits, for a client that waits so many `seconds` at most."""
        return Patience(self._policy().priority(call), seconds=seconds)

    async def go_on(self, holder: Holder, asked: Asked, call: Call, *, instead: bool) -> Refusal | None:
        """Hold what `call` meets, for a model that the router goes on to.

        That is `instead` of the one asked for where that one failed. Where several were asked for, each in
        a task of its own, it is in place of what the task has gone on to before.
        """
        if instead and len(asked.calls) == 1:
            return await self.admit(holder, replace(asked, calls=(call,), again=None))
        task = asyncio.current_task()
        holder.drop(task)
        holder.asked = replace(asked, calls=(*asked.calls, call))
        held = holder.scopes if len(asked.calls) == 1 else self._without_models(call)
        missing = [limit for limit in self._policy().limits(call) if limit.scope not in held]
        # It does not wait: it would with what it holds, and others would wait for that.
        refusal = await self._take(holder, replace(asked, run=task, patience=None), [missing])
        if refusal is not None and len(asked.calls) == 1:
            holder.asked = asked
        return refusal

    def _wanted(self, holder: Holder, calls: Sequence[Call]) -> list[Sequence[Limit]]:
        wanted = list(self._limits(holder, calls))
        if len(wanted) > 1 and sum(map(len, wanted)) > MOST_SCOPES:
            raise TooManyLimitsError(f"A request may meet {MOST_SCOPES} limits at most.")
        return wanted

    def _limits(self, holder: Holder, calls: Sequence[Call]) -> Iterator[Sequence[Limit]]:
        """Yield what each of `calls` is to take; what counts no model is taken once."""
        held = set(holder.scopes) if holder.is_holding else set()
        for call in calls:
            met = self._policy().limits(call)
            yield [limit for limit in met if limit.scope not in held] if held else met
            if len(calls) > 1:
                held |= self._without_models(call)

    def _without_models(self, call: Call) -> set[Scope]:
        return {limit.scope for limit in self._policy().limits(call.without_models())}

    async def _take(self, holder: Holder, asked: Asked, wanted: Sequence[Sequence[Limit]]) -> Refusal | None:
        """Hold all that is `wanted`, or nothing; while a part of it is waited for nothing is held."""
        first, began, waited = 0, time.monotonic(), 0.0
        while True:
            place, refusal = await self._try(holder, asked, wanted, first, waited)
            if refusal is None:
                return None
            holder.drop(asked.run)
            if asked.patience is None or place == first or not refusal.may_be_waited_for:
                announce(holder, asked, refusal.headers, refused=refusal.status)
                return refusal
            first, waited = place, time.monotonic() - began

    async def _try(
        self, holder: Holder, asked: Asked, wanted: Sequence[Sequence[Limit]], first: int, waited: float
    ) -> tuple[int, Refusal | None]:
        """Take each part of what is `wanted`, the one at `first` before the others: it may be waited for.

        Returns at which the refusal came, if one did.
        """
        admitted: list[Admitted] = []
        for place in (first, *[place for place in range(len(wanted)) if place != first]):
            if not wanted[place]:
                continue
            wish = None if admitted else self._wish(holder, asked, wanted, place, waited)
            answer = await self._gate.admit(
                wanted[place], model=asked.model, key_name=asked.key_name, wish=wish
            )
            if not isinstance(answer, Permit):
                return place, answer
            holder.keep(answer, asked.run)
            admitted.append(answer.admitted)
        if admitted:
            announce(holder, asked, admitted_headers(*admitted))
        return first, None

    def _wish(
        self, holder: Holder, asked: Asked, wanted: Sequence[Sequence[Limit]], place: int, waited: float
    ) -> Wish | None:
        if asked.patience is None or all(limit.wait is None for limit in wanted[place]):
            return None
        patience = asked.patience()
        patience = replace(patience, waited=patience.waited + waited)
        if patience.seconds <= 0:
            return None

        async def limits() -> Sequence[Limit]:
            now = wanted if asked.again is None else self._wanted(holder, await asked.again())
            return (now if len(now) == len(wanted) else wanted)[place]

        return Wish(limits, patience, holder.gone)


def announce(holder: Holder, asked: Asked, headers: Headers, *, refused: int = 0) -> None:
    """Let the request's answer carry `headers`, unless they are of a call nested in it."""
    if asked.run == holder.run:
        holder.announce(headers, refused=refused)
