"""Requests for which the router has yet to choose, and those that look at what its choice gives back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from litellm_parallel_limits.holder import Owner

LOOKS = 25
"""At deployments that are full, the first included: at each there is one less before it to choose."""

LOOKS_FOR_OTHERS = 3
"""Further looks in any case where there are other workers: nothing is known of those that choose there."""

LOOK_SECONDS = 0.02
"""From one look to the next, should nothing be told: LiteLLM's router takes a few milliseconds to choose."""

CHOICE_SECONDS = 1.0
"""A router that takes longer to choose, for whatever reason, is not waited for."""


@dataclass(eq=False)
class Look:
    """A request's look at deployments, and whether something was given back there since it began.

    There are `more` to come in any case, but none that begins after the moment `until`.
    """

    at: AbstractSet[str]
    more: int
    until: float
    is_out_of_date: bool = False


class Undecided:
    """The requests of a worker that hold, or soon may, a slot in more deployments than they will call."""

    def __init__(self) -> None:
        self._looking: WeakKeyDictionary[Owner, AbstractSet[str]] = WeakKeyDictionary()
        self._holding: WeakKeyDictionary[Owner, AbstractSet[str]] = WeakKeyDictionary()
        self._looks: set[Look] = set()
        self._changed = asyncio.Event()

    @contextmanager
    def looking(
        self, attempt: Owner, deployments: AbstractSet[str], *, beside_others: bool
    ) -> Iterator[Look]:
        """While `attempt` looks at these deployments, maybe beside other workers, it soon may hold any."""
        more = LOOKS_FOR_OTHERS if beside_others and len(deployments) > 1 else 0
        look = Look(deployments, more, time.monotonic() + CHOICE_SECONDS)
        self._looks.add(look)
        self._looking[attempt] = deployments
        try:
            yield look
        finally:
            self._looks.discard(look)
            self._looking.pop(attempt, None)

    def found(self, attempt: Owner, room: AbstractSet[str]) -> None:
        """Note where `attempt` holds a slot by now: of one only it will give nothing back."""
        self._looking.pop(attempt, None)
        if len(room) > 1:
            self._holding[attempt] = room
        self._wake()

    def decided(self, attempt: Owner) -> None:
        """Let the others look at what `attempt` has given back."""
        self.gave_back(self._holding.pop(attempt, ()))

    def gave_back(self, deployments: Collection[str]) -> None:
        """Let those look again that look at one of these deployments."""
        if not deployments:
            return
        for look in self._looks:
            if not look.at.isdisjoint(deployments):
                look.is_out_of_date = True
        self._wake()

    async def may_have_room(self, attempt: Owner, look: Look) -> bool:
        """Wait until it is time to look again, and return True; False if nobody chooses who may make room."""
        if len(look.at) == 1 or time.monotonic() >= look.until:
            return False
        if look.more:
            await self._change(look, LOOK_SECONDS)
            look.more -= not look.is_out_of_date
        elif not await self._others_chose(look):
            return False
        look.is_out_of_date = False
        self._looking[attempt] = look.at
        return True

    async def _others_chose(self, look: Look) -> bool:
        """Wait for those that hold, or are about to; who is gone without a word has given back as well."""
        held_before = False
        while not look.is_out_of_date:
            is_held = _overlaps(self._holding, look.at)
            if held_before and not is_held:
                return True
            if time.monotonic() >= look.until or not (is_held or _overlaps(self._looking, look.at)):
                return False
            held_before = is_held
            await self._change(look, LOOK_SECONDS)
        return True

    async def _change(self, look: Look, seconds: float) -> None:
        if not look.is_out_of_date:
            with suppress(TimeoutError, asyncio.TimeoutError):
                await asyncio.wait_for(self._changed.wait(), seconds)

    def _wake(self) -> None:
        if self._looks:
            self._changed.set()
            self._changed = asyncio.Event()


def _overlaps(among: Mapping[Owner, AbstractSet[str]], deployments: AbstractSet[str]) -> bool:
    return any(not ids.isdisjoint(deployments) for ids in among.values())
