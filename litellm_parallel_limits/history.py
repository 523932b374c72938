"""What was in flight and refused lately, over all workers."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from litellm_parallel_limits.background import start
from litellm_parallel_limits.errors import StoreError
from litellm_parallel_limits.events import Event
from litellm_parallel_limits.limits import Admitted, Refused, Scope
from litellm_parallel_limits.stores import Store

STEP_SECONDS = 5
"""For which one number stands. A picture of a quarter of an hour is about as many dots wide."""

STEPS = 180
"""That are told: a quarter of an hour."""

LATELY_STEPS = 13
"""A minute, and the step that has only begun."""

SAMPLES = 5
"""In a step: what is in flight is looked at each second, by the store's clock, by all workers alike."""

PAST_SECONDS = STEPS * STEP_SECONDS + 60
"""For which what is noted by limit is kept: a minute more, for late readers."""

LATELY_SECONDS = (LATELY_STEPS + 1) * STEP_SECONDS
"""For which what is noted by scope is kept."""

MOST_NAMES = 1000
"""Of limits in a step, twice: far more than anybody has."""

MOST_REFUSING = 100
"""Scopes whose refusals are told apart in a step, over all workers. Strangers may be called anything; of
others the limit's refusals are told."""

HELD, REFUSED = "held", "refused"


class Holds(Protocol):
    """Who holds slots."""

    @property
    def store(self) -> Store:
        """Where workers note what they hold."""
        ...

    @property
    def degraded(self) -> bool:
        """Whether the store is out."""
        ...

    @property
    def in_flight(self) -> int:
        """How many leases this worker holds."""
        ...

    def slots(self) -> Mapping[str, int]:
        """Return how many slots it holds, by the name of the limit."""
        ...


@dataclass(frozen=True, slots=True)
class Series:
    """The mean in flight, and the sum of refusals, in each step; the oldest first."""

    in_flight: Sequence[float]
    refused: Sequence[int]


@dataclass(frozen=True, slots=True)
class Past:
    """The steps of the last quarter of an hour that are over: requests, and the slots of each limit."""

    step_seconds: int
    in_flight: Sequence[float]
    refused: Sequence[int]
    limits: Mapping[str, Series]


@dataclass(frozen=True, slots=True)
class Refusals:
    """How often a scope, or only a limit where there were too many, refused, and at which lowest number."""

    number: int
    capacity: int | None

    def beside(self, others: Refusals) -> Refusals:
        """Return these and `others` of the same scope."""
        known = [one.capacity for one in (self, others) if one.capacity is not None]
        return Refusals(self.number + others.number, min(known, default=None))


class History:
    """Notes in the store, each second while there is something to note, what this worker holds and refuses.

    Nothing is paid by a request but for a refusal to be counted. What cannot be noted is lost: it is a
    picture, no account. `limiter` gives the worker's.
    """

    hears = (Admitted, Refused)

    def __init__(self, limiter: Callable[[], Holds]) -> None:
        self._limiter = limiter
        self._refused: Counter[str] = Counter()
        self._refusing: Counter[str] = Counter()
        self._noting: object = None
        self._sampled = -1

    def __call__(self, event: Event) -> None:
        """Take note of a refusal, and begin to look at what is held."""
        if isinstance(event, Refused) and not event.limit.scope.is_tried:
            self._refused[event.limit.scope.limit] += 1
            name = f"{event.limit.capacity}:{event.limit.scope.key}"
            if name in self._refusing or len(self._refusing) < MOST_REFUSING:
                self._refusing[name] += 1
        if self._noting is None:
            self._noting = start(self._note_while_held())

    async def past(self) -> Past:
        """Return the last quarter of an hour. Raises StoreError."""
        now = self._step()
        steps = await self._limiter().store.noted([_past(step) for step in range(now - STEPS, now)])
        held, refused = ([_named(step, kind) for step in steps] for kind in (HELD, REFUSED))
        names = sorted({name for step in (*held, *refused) for name in step if name})
        return Past(
            STEP_SECONDS,
            [_mean(step, "") for step in held],
            [sum(step.values()) for step in refused],
            {
                name: Series([_mean(step, name) for step in held], [step.get(name, 0) for step in refused])
                for name in names
            },
        )

    async def refused_lately(self) -> Mapping[Scope, Refusals]:
        """Return the refusals of the last minute by scope; those of too many scopes, by limit only.

        Raises StoreError.
        """
        await self.note()
        now = self._step()
        steps = range(now - LATELY_STEPS + 1, now + 1)
        found: dict[Scope, Refusals] = {}
        for step in await self._limiter().store.noted([_lately(step) for step in steps]):
            for name, amount in step.items():
                capacity, _, key = name.partition(":")
                scope = Scope.parse(key)
                refusals = Refusals(amount, int(capacity))
                found[scope] = refusals.beside(found[scope]) if scope in found else refusals
        others = Counter[str]()
        for step in await self._limiter().store.noted([_past(step) for step in steps]):
            others.update(_named(step, REFUSED))
        for scope, refusals in found.items():
            others[scope.limit] -= refusals.number
        for name, number in others.items():
            if number > 0:
                rest = Refusals(number, None)
                found[Scope(name)] = rest.beside(found[Scope(name)]) if Scope(name) in found else rest
        return found

    async def note(self, *, sample: bool = False) -> None:
        """Note the refusals since the last time; with a `sample` also what is held now."""
        limiter, refused, refusing = self._limiter(), self._refused, self._refusing
        self._refused, self._refusing = Counter(), Counter()
        amounts = {f"{REFUSED}:{name}": number for name, number in refused.items()}
        if sample and limiter.in_flight:
            amounts |= {f"{HELD}:{name}": number for name, number in limiter.slots().items()}
            amounts[f"{HELD}:"] = limiter.in_flight
        if not amounts or limiter.degraded:
            return
        step = self._step()
        with suppress(StoreError):
            await limiter.store.note(_past(step), amounts, seconds=PAST_SECONDS, most=MOST_NAMES)
            if refusing:
                await limiter.store.note(_lately(step), refusing, seconds=LATELY_SECONDS, most=MOST_REFUSING)

    async def _note_while_held(self) -> None:
        try:
            while self._refused or self._limiter().in_flight:
                into_second = self._limiter().store.now_ms() % 1000
                await asyncio.sleep((1000 - into_second) / 1000)
                second = self._limiter().store.now_ms() // 1000
                if second > self._sampled:  # not the same once more: the store's clock is only reckoned
                    self._sampled = second
                    await self.note(sample=True)
        finally:
            self._noting = None

    def _step(self) -> int:
        return self._limiter().store.now_ms() // 1000 // STEP_SECONDS


def _past(step: int) -> str:
    return f"past-{step}"


def _lately(step: int) -> str:
    return f"lately-{step}"


def _named(step: Mapping[str, int], kind: str) -> Mapping[str, int]:
    """Return what is of this `kind` in a step, by the limit's name; of all together by none."""
    parts = ((*name.partition(":"), amount) for name, amount in step.items())
    return {name: amount for of, _, name, amount in parts if of == kind}


def _mean(step: Mapping[str, int], name: str) -> float:
    return round(step.get(name, 0) / SAMPLES, 1)
