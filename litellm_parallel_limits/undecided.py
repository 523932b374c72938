"""Requests for which the router has yet to choose, and those that look at what its choice gives back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterator
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

    There are `more` to come in any case.
    """

    at: AbstractSet[str]
    more: int
    is_out_of_date: bool = False


class Undecided:
    """The requests of a worker that hold, or soon may, a slot in more deployments than they will call."""

    def __init__(self) -> None:
        self._among: WeakKeyDictionary[Owner, AbstractSet[str]] = WeakKeyDictionary()
        self._looks: set[Look] = set()
        self._changed = asyncio.Event()

    @contextmanager
    def looking(
        self, attempt: Owner, deployments: AbstractSet[str], *, beside_others: bool
    ) -> Iterator[Look]:
        """While `attempt` looks at these deployments, maybe beside other workers, it soon may hold any."""
        look = Look(deployments, LOOKS_FOR_OTHERS if beside_others and len(deployments) > 1 else 0)
        self._looks.add(look)
        self._among[attempt] = deployments
        try:
            yield look
        except BaseException:
            self.decided(attempt)
            raise
        finally:
            self._looks.discard(look)

    def found(self, attempt: Owner, room: AbstractSet[str]) -> None:
        """Note where `attempt` holds a slot by now: of one only it will give nothing back."""
        if len(room) > 1:
            self._among[attempt] = room
        else:
            self._among.pop(attempt, None)
            self._wake()

    def decided(self, attempt: Owner) -> None:
        """Let the others look at what `attempt` has given back."""
        self.gave_back(self._among.pop(attempt, ()))

    def gave_back(self, deployments: Collection[str]) -> None:
        """Let those look again that look at one of these deployments."""
        for look in self._looks:
            if not look.at.isdisjoint(deployments):
                look.is_out_of_date = True
        self._wake()

    async def may_have_room(self, attempt: Owner, look: Look) -> bool:
        """Wait until it is time to look again, and return True; False if nobody chooses who may make room."""
        ends = time.monotonic() + (LOOK_SECONDS if look.more else CHOICE_SECONDS)
        while not look.is_out_of_date and time.monotonic() < ends:
            if not (look.more or self._is_chosen_from(look.at)):
                return False
            with suppress(TimeoutError, asyncio.TimeoutError):
                await asyncio.wait_for(self._changed.wait(), LOOK_SECONDS)
        if not (look.more or look.is_out_of_date):
            return False
        look.more -= look.more > 0 and not look.is_out_of_date
        look.is_out_of_date = False
        self._among[attempt] = look.at
        return True

    def _is_chosen_from(self, deployments: AbstractSet[str]) -> bool:
        return any(not among.isdisjoint(deployments) for among in self._among.values())

    def _wake(self) -> None:
        if self._looks:
            self._changed.set()
            self._changed = asyncio.Event()
