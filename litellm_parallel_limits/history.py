"""What was in flight and refused lately, over all workers."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from litellm_parallel_limits.background import start
from litellm_parallel_limits.errors import StoreError
from litellm_parallel_limits.events import Event
from litellm_parallel_limits.limits import Limit, Refused, Scope
from litellm_parallel_limits.stores import Store

STEP_SECONDS = 5
"""For which one number stands. A picture of a quarter of an hour is about as many dots wide."""

STEPS = 180
"""That are told: a quarter of an hour."""

LATELY_STEPS = 13
"""A minute, and the step that has only begun."""

SAMPLES = 5
"""In a step: what is in flight is looked at each second, by the store's clock, by all workers alike."""

AFTER_MS = 20
"""The beginning of a second: who is early by less, because the store's clock is only reckoned, is not twice
in the same one."""

MOST_REFUSING = 100
"""Scopes of which one worker tells the refusals of a second; of more it tells the limits only."""

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

    def held(self) -> tuple[int, Mapping[str, int]]:
        """Return how many leases this worker holds, and how many slots by the name of the limit."""
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

    def __init__(self, limiter: Callable[[], Holds]) -> None:
        self._limiter = limiter
        self._refused: Counter[str] = Counter()
        self._noting: object = None

    def __call__(self, event: Event) -> None:
        """Take note of a refusal, and begin to look at what is held."""
        if isinstance(event, Refused) and not event.limit.scope.is_tried:
            self._refused[self._name(event.limit)] += 1
        if self._noting is None:
            self._noting = start(self._note_while_held())

    async def past(self) -> Past:
        """Return the last quarter of an hour. Raises StoreError."""
        now = self._step()
        steps = await self._limiter().store.noted(range(now - STEPS, now))
        held = [dict(_named(step, HELD)) for step in steps]
        refused = [_by_limit(step) for step in steps]
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
        """Return the refusals of the last minute by scope. Raises StoreError."""
        await self.note()
        now = self._step()
        found: dict[Scope, Refusals] = {}
        for step in await self._limiter().store.noted(range(now - LATELY_STEPS + 1, now + 1)):
            for name, amount in _named(step, REFUSED):
                capacity, _, key = name.partition(":")
                refusals = Refusals(amount, int(capacity) if capacity else None)
                scope = Scope.parse(key)
                found[scope] = refusals.beside(found[scope]) if scope in found else refusals
        return found

    def _step(self) -> int:
        return self._limiter().store.now_ms() // 1000 // STEP_SECONDS

    def _name(self, limit: Limit) -> str:
        name = f"{REFUSED}:{limit.capacity}:{limit.scope.key}"
        if name in self._refused or len(self._refused) < MOST_REFUSING:
            return name
        return f"{REFUSED}::{limit.scope.limit}"

    async def _note_while_held(self) -> None:
        try:
            while self._refused or self._limiter().held()[0]:
                into_second = self._limiter().store.now_ms() % 1000
                await asyncio.sleep((1000 + AFTER_MS - into_second) / 1000)
                await self.note(sample=True)
        finally:
            self._noting = None

    async def note(self, *, sample: bool = False) -> None:
        """Note the refusals since the last time; with a `sample` also what is held now."""
        limiter, refused = self._limiter(), self._refused
        self._refused = Counter()
        amounts = dict(refused)
        if sample:
            leases, slots = limiter.held()
            amounts |= {f"{HELD}:{name}": number for name, number in slots.items()}
            amounts |= {f"{HELD}:": leases} if leases else {}
        if amounts and not limiter.degraded:
            with suppress(StoreError):
                await limiter.store.note(self._step(), amounts)


def _named(step: Mapping[str, int], kind: str) -> Iterator[tuple[str, int]]:
    """Yield what is of this `kind` in a step, by its name."""
    for name, amount in step.items():
        of, _, rest = name.partition(":")
        if of == kind:
            yield rest, amount


def _by_limit(step: Mapping[str, int]) -> Mapping[str, int]:
    refused: Counter[str] = Counter()
    for name, amount in _named(step, REFUSED):
        _, _, key = name.partition(":")
        refused[key.partition(";")[0]] += amount
    return refused


def _mean(step: Mapping[str, int], name: str) -> float:
    return round(step.get(name, 0) / SAMPLES, 1)
