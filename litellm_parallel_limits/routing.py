"""What a request holds of the deployments that LiteLLM's router chooses among."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from litellm_parallel_limits.answers import WOULD_REFUSE, Refusal, admitted_headers
from litellm_parallel_limits.first_of import first_permit
from litellm_parallel_limits.gate import Gate
from litellm_parallel_limits.holder import Asked, Holder, Owner
from litellm_parallel_limits.limiter import Permit
from litellm_parallel_limits.limits import Limit, Patience, Scope
from litellm_parallel_limits.model_info import Entry, deployment_id, is_counted, said
from litellm_parallel_limits.models import choosing
from litellm_parallel_limits.policy import Policy
from litellm_parallel_limits.sources import Call
from litellm_parallel_limits.undecided import LOOKS, Undecided
from litellm_parallel_limits.waiting import Wish


class Routing:
    """Takes a slot in the deployment that the router chooses.

    A request takes one in every deployment that has room, before the router chooses, and gives the others
    back when it has chosen. What an earlier attempt of the same task held is given back when the next
    begins: retries and fallbacks of a request follow one another in one task, and models that it asks for
    at the same time have a task each.
    """

    def __init__(self, policy: Callable[[], Policy], gate: Gate) -> None:
        self._policy = policy
        self._gate = gate
        self._undecided = Undecided()

    async def with_room(
        self, holder: Holder, asked: Asked, call: Call, deployments: Sequence[Entry]
    ) -> Sequence[Entry] | Refusal:
        """Return the deployments that have room, a slot taken in each; the refusal if none has.

        The router chooses among them for `call`, one of those that are `asked` for.
        """
        self.let_go(holder)
        if not (self._policy().counts_by("deployment") or any(map(said, deployments))):
            return deployments
        limits = {deployment_id(entry): self._limits(holder, asked, call, entry) for entry in deployments}
        if not any(limits.values()):
            return deployments
        holder.attempts[_this_task()] = dict.fromkeys(limits)
        room = await self._look(holder, asked, limits)
        if isinstance(room, Refusal):
            return room
        return [entry for entry in deployments if deployment_id(entry) in room]

    async def wait_for_one(
        self, holder: Holder, asked: Asked, call: Call, deployments: Sequence[Entry], patience: Patience
    ) -> Sequence[Entry] | Refusal:
        """Wait until one of the deployments has room, and return it, its slot taken."""
        limits = {deployment_id(entry): self._limits(holder, asked, call, entry) for entry in deployments}
        asking = {
            one: self._gate.admit(
                met, model=asked.model, key_name=asked.key_name, wish=_wish(met, patience, holder)
            )
            for one, met in limits.items()
        }
        chosen, answer = await first_permit(asking)
        if not isinstance(answer, Permit):
            return answer
        holder.attempts[_this_task()] = {chosen: answer}
        holder.keep(answer, answer)
        return [entry for entry in deployments if deployment_id(entry) == chosen]

    def let_go(self, holder: Holder) -> None:
        """Give back what this task's attempt holds."""
        if holder.attempts:
            self._end(holder, _this_task())

    async def _look(
        self, holder: Holder, asked: Asked, limits: Mapping[str, tuple[Limit, ...]]
    ) -> AbstractSet[str] | Refusal:
        """Return the deployments that have room, a slot taken in each; the refusal if none has.

        Where none has, look again when others have chosen, and keep one only: of several that look together
        the first would else have the room of all.
        """
        attempt, beside_others = _this_task(), self._gate.is_beside_others
        try:
            with self._undecided.looking(attempt, limits.keys(), beside_others=beside_others) as look:
                refused = await self._take(holder, asked, limits)
                room: AbstractSet[str] = limits.keys() - refused.keys()
                self._undecided.found(attempt, room)
                for _ in range(1, LOOKS):
                    if room or not await self._undecided.may_have_room(attempt, look):
                        break
                    refused = await self._take(holder, asked, limits)
                    room = self._keep_one(holder, limits.keys() - refused.keys())
        except BaseException:
            self._end(holder, attempt)
            raise
        return room or min(refused.values(), key=_seconds)

    def _keep_one(self, holder: Holder, room: AbstractSet[str]) -> AbstractSet[str]:
        attempt = _this_task()
        kept = frozenset(random.sample(sorted(room), min(1, len(room))))
        held = holder.attempts.get(attempt, {})
        holder.attempts[attempt] = {one: held.get(one) for one in kept}
        _drop(holder, {one: held.get(one) for one in room - kept})
        self._undecided.found(attempt, kept)
        self._undecided.gave_back(room - kept)
        return kept

    def chose(self, holder: Holder, entry: Entry) -> None:
        """Give back what is held of other deployments than the one that the router chose."""
        chosen = deployment_id(entry)
        attempt = _attempt_at(holder, chosen)
        if attempt is None:
            return
        others = dict(holder.attempts[attempt])
        permit = others.pop(chosen)
        holder.attempts[attempt] = {chosen: permit}
        if permit is not None:
            headers = admitted_headers(permit.admitted)
            if not all(other and other.admitted.overrun for other in others.values()):
                headers = {name: value for name, value in headers.items() if name != WOULD_REFUSE}
            holder.announce_also(headers)
        _drop(holder, others)
        self._undecided.decided(attempt)

    def knows(self, holder: Holder, entry: Entry) -> bool:
        """Whether the router has chosen this deployment among those that it asked us about."""
        return _attempt_at(holder, deployment_id(entry)) is not None

    def failed(self, holder: Holder, entry: Entry) -> None:
        """Give back what the attempt at this deployment held."""
        attempt = _attempt_at(holder, deployment_id(entry))
        if attempt is not None:
            self._end(holder, attempt)

    def _end(self, holder: Holder, attempt: Owner) -> None:
        _drop(holder, holder.attempts.pop(attempt, {}))
        self._undecided.decided(attempt)

    def _limits(self, holder: Holder, asked: Asked, call: Call, entry: Entry) -> tuple[Limit, ...]:
        """Return what is still to be taken: of a model's only deployment it was taken with the model.

        What is not asked for is a call nested in the request, and never waits for what the request holds.
        """
        policy = self._policy()
        if not (said(entry) or policy.counts_by("deployment")) or not is_counted(entry):
            return ()
        if call in asked.calls and any(deployment_id(entry) == taken.id for taken in call.deployments):
            return ()
        held = frozenset[Scope]() if call in asked.calls else holder.scopes_of_runs
        met = policy.limits(choosing(call, entry), by="deployment")
        return tuple(limit for limit in met if limit.scope not in held)

    async def _take(
        self, holder: Holder, asked: Asked, limits: Mapping[str, tuple[Limit, ...]]
    ) -> dict[str, Refusal]:
        """Take a slot in each of these deployments, all in one call of the store; return who refused."""
        attempt = holder.attempts.setdefault(_this_task(), {})

        async def take(deployment: str, met: tuple[Limit, ...]) -> Refusal | None:
            answer = await self._gate.admit(met, model=asked.model, key_name=asked.key_name)
            if not isinstance(answer, Permit):
                return answer
            attempt[deployment] = answer
            holder.keep(answer, answer)
            return None

        limited = {one: met for one, met in limits.items() if met}
        answers = await asyncio.gather(*(take(one, met) for one, met in limited.items()))
        return {one: answer for one, answer in zip(limited, answers, strict=True) if answer is not None}


def _wish(limits: Sequence[Limit], patience: Patience, holder: Holder) -> Wish:
    async def now() -> Sequence[Limit]:
        return limits

    return Wish(now, patience, holder.gone)


def _this_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 (LiteLLM's hooks run in tasks)
    return task


def _attempt_at(holder: Holder, deployment: str) -> Owner | None:
    """Return the attempt that may go to `deployment`: this task's, if it is one of them."""
    attempts = [attempt for attempt, may_go in holder.attempts.items() if deployment in may_go]
    return _this_task() if len(attempts) > 1 and _this_task() in attempts else next(iter(attempts), None)


def _drop(holder: Holder, held: Mapping[str, Permit | None]) -> None:
    for permit in held.values():
        if permit is not None:
            holder.drop(permit)


def _seconds(refusal: Refusal) -> int:
    return int(refusal.headers["retry-after"])
