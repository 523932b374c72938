"""How a request comes to hold a slot in every limit that it meets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from litellm_parallel_limits.answers import Headers, Refusal, admitted_headers
from litellm_parallel_limits.errors import TooManyLimitsError
from litellm_parallel_limits.gate import Gate
from litellm_parallel_limits.holder import Asked, Holder
from litellm_parallel_limits.limiter import Permit
from litellm_parallel_limits.limits import Admitted, Limit, Scope
from litellm_parallel_limits.policy import MOST_SCOPES, Policy
from litellm_parallel_limits.sources import Call


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
        holder.drop(asked.run)
        announce(holder, asked, {})
        wanted = list(self._limits(holder, asked.calls))
        if sum(map(len, wanted)) > MOST_SCOPES:
            raise TooManyLimitsError(f"A request may meet {MOST_SCOPES} limits at most.")
        return await self._take(holder, asked, wanted)

    async def go_on(self, holder: Holder, asked: Asked, call: Call, *, instead: bool) -> Refusal | None:
        """Hold what `call` meets, for a model that the router goes on to.

        That is `instead` of the one asked for where that one failed. Where several were asked for, each in
        a task of its own, it is in place of what the task has gone on to before.
        """
        if instead and len(asked.calls) == 1:
            return await self.admit(holder, replace(asked, calls=(call,)))
        task = asyncio.current_task()
        holder.drop(task)
        holder.asked = replace(asked, calls=(*asked.calls, call))
        held = holder.scopes if len(asked.calls) == 1 else self._without_models(call)
        missing = [limit for limit in self._policy().limits(call) if limit.scope not in held]
        refusal = await self._take(holder, replace(asked, run=task), [missing])
        if refusal is not None and len(asked.calls) == 1:
            holder.asked = asked
        return refusal

    def _limits(self, holder: Holder, calls: Sequence[Call]) -> Iterator[list[Limit]]:
        """Yield what each of `calls` is to take; what counts no model is taken once."""
        held = set(holder.scopes)
        for call in calls:
            yield [limit for limit in self._policy().limits(call) if limit.scope not in held]
            if len(calls) > 1:
                held |= self._without_models(call)

    def _without_models(self, call: Call) -> set[Scope]:
        return {limit.scope for limit in self._policy().limits(call.without_models())}

    async def _take(self, holder: Holder, asked: Asked, wanted: Sequence[Sequence[Limit]]) -> Refusal | None:
        admitted: list[Admitted] = []
        for limits in filter(None, wanted):
            answer = await self._gate.admit(limits, model=asked.model, key_name=asked.key_name)
            if not isinstance(answer, Permit):
                holder.drop(asked.run)
                announce(holder, asked, answer.headers, refused=answer.status)
                return answer
            holder.keep(answer, asked.run)
            admitted.append(answer.admitted)
        if admitted:
            announce(holder, asked, admitted_headers(*admitted))
        return None


def announce(holder: Holder, asked: Asked, headers: Headers, *, refused: int = 0) -> None:
    """Let the request's answer carry `headers`, unless they are of a call nested in it."""
    if asked.run == holder.run:
        holder.announce(headers, refused=refused)
