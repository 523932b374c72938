"""Waiting until a deployment has room."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from litellm_parallel_limits.admission import Admission
from litellm_parallel_limits.answers import Refusal
from litellm_parallel_limits.holder import Asked, Holder
from litellm_parallel_limits.limits import Patience
from litellm_parallel_limits.model_info import Entry
from litellm_parallel_limits.routing import Routing
from litellm_parallel_limits.sources import Call


class Line:
    """Where requests wait whose deployments are all full, with nothing held meanwhile.

    When a deployment has room, a request takes what it meets itself once more. If that is full by then, it
    waits for that in its turn, with nothing held, and looks at the deployments anew.
    """

    def __init__(self, admission: Admission, routing: Routing) -> None:
        self._admission = admission
        self._routing = routing

    def may_wait(self, holder: Holder, asked: Asked, call: Call, refusal: Refusal) -> bool:
        """Whether the request waits for what has refused it: not where it holds more than its own."""
        if not refusal.may_be_waited_for or asked.patience is None or asked.patience().seconds <= 0:
            return False
        return call in asked.calls and len(asked.calls) == 1 and not holder.holds_for_others(asked.run)

    async def wait(
        self, holder: Holder, asked: Asked, call: Call, deployments: Sequence[Entry]
    ) -> Sequence[Entry] | Refusal:
        """Return a deployment that has room, or those that have, a slot taken in each; else the refusal."""
        began = time.monotonic()
        while True:
            holder.drop(asked.run)
            patience = _after(asked, time.monotonic() - began)
            room = await self._routing.wait_for_one(holder, asked, call, deployments, patience)
            if isinstance(room, Refusal):
                return room
            refusal = await self._retake(holder, asked, None)
            if refusal is None:
                return room
            self._routing.let_go(holder)
            if refusal.may_be_waited_for:
                refusal = await self._retake(holder, asked, _after(asked, time.monotonic() - began))
            if refusal is not None:
                return refusal
            again = await self._routing.with_room(holder, asked, call, deployments)
            if not isinstance(again, Refusal):
                return again

    async def _retake(self, holder: Holder, asked: Asked, patience: Patience | None) -> Refusal | None:
        """Take what the request itself meets, with `patience` or without."""
        again = replace(asked, patience=None if patience is None else lambda: patience)
        refusal = await self._admission.admit(holder, again)
        holder.asked = asked
        return refusal


def _after(asked: Asked, seconds: float) -> Patience:
    assert asked.patience is not None  # noqa: S101 (else it does not wait)
    return replace(asked.patience(), waited=seconds)
