"""What a worker and a backend tell each other in one call."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from litellm_parallel_limits.limits import Admitted, Answer, Lease, Limit, Patience, Refused, Scope
from litellm_parallel_limits.stores import Holding

UNKNOWN = 0
"""In the place of an epoch: the worker has not been told of any."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A request for the slots of `lease`. With `patience` it waits for them where the limits let it.

    As a release: of the slots, and with `patience` of the place in line.
    """

    lease: Lease
    patience: Patience | None = None


@dataclass(frozen=True, slots=True)
class Stands:
    """The answer to one that waits now: for `limit`, full with `in_flight` leases, `waiting` for more."""

    limit: Limit
    in_flight: int
    waiting: int


@dataclass(frozen=True, slots=True)
class Grant:
    """Whose turn came: the lease of this `id` has its slots, `in_flight` others beside it in each limit."""

    id: str
    apart: bool
    in_flight: tuple[int, ...]

    def to(self, lease: Lease) -> Admitted:
        """Return what `lease` was given."""
        return granted(lease, self.in_flight, apart=self.apart)


def granted(lease: Lease, in_flight: Iterable[int], *, apart: bool) -> Admitted:
    """Return the admission of `lease` beside so many others in each limit."""
    lease = replace(lease, apart=True) if apart else lease
    return Admitted(lease, tuple([count + 1 for count in in_flight]))


@dataclass(frozen=True, slots=True)
class Exchange:
    """What a worker tells and asks: releases, then renewals, then who asks, in order.

    A worker numbers its calls from 1 upwards. `acknowledged` is the number of its last call that was
    answered, 0 if it holds nothing and that was long ago; `lately` tells that it was so short ago that the
    backend must know of it still. `epoch` is the last that the worker was told.
    """

    worker: str
    number: int
    acknowledged: int
    lately: bool
    epoch: int
    releases: Sequence[Ask] = ()
    renewals: Sequence[Lease] = ()
    asks: Sequence[Ask] = ()


@dataclass(frozen=True, slots=True)
class Reply:
    """What a backend answers, at `now_ms` by its clock, to so many live `workers`.

    `epoch` is when the backend last found that it had lost leases, in ms by its clock; below zero, when it
    was first called, if it has lost none since. There is one answer for each who asked, or None where
    nobody was admitted, because the worker did not know of the epoch: it must renew what it holds, and
    see whether the epoch is settled. At `alarm_ms` somebody must call, for those that wait; 0 if nobody does.
    """

    now_ms: int
    workers: int
    epoch: int
    answers: Sequence[Answer | Stands | None]
    alarm_ms: int = 0


class Backend(Protocol):
    """Where the workers' calls come together. Whatever it raises, the call may have been carried out."""

    name: str

    def now_ms(self) -> int:
        """Return the time by its clock, as well as it is known without asking."""
        ...

    async def exchange(self, exchange: Exchange) -> Reply:
        """Carry out a call as one. One that comes after a later call of its worker is an error."""
        ...

    def grants(self, worker: str) -> AsyncGenerator[Sequence[Grant], None]:
        """Yield what those are given that wait in `worker`, as it is given; an empty list now and then."""
        ...

    async def waiting(self, scopes: Sequence[Scope]) -> Sequence[int]:
        """Return how many wait that came for a slot in each of `scopes`."""
        ...

    def holdings(self) -> AsyncIterator[Sequence[Holding]]:
        """Yield every slot in use, some at a time."""
        ...

    async def free(self, scopes: Sequence[Scope], lease: str | None) -> int:
        """Free the slots in `scopes`, of `lease` only if one is named, and return how many there were."""
        ...

    async def note(self, place: str, amounts: Mapping[str, int], *, seconds: int, most: int) -> None:
        """Add `amounts`, by name, to what was noted at a `place`.

        It is kept for so many `seconds` from now. Of more than `most` names the last ones are left out.
        """
        ...

    async def noted(self, places: Sequence[str]) -> Sequence[Mapping[str, int]]:
        """Return the sums of what was noted at each of `places`."""
        ...


def settling_seconds(ttl: float) -> float:
    """Return how long after a loss leases of other workers may still be missing.

    A time to live: a lease that has not been renewed for so long has lapsed.
    """
    return ttl


def refused_of(ask: Ask, limit: Limit, in_flight: int, waiting: int) -> Refused:
    """Return the refusal by `limit`: because it is full, or because as many wait for it as may."""
    may_wait = ask.patience is not None and limit.may_be_waited_for
    is_queue_full = may_wait and limit.wait is not None and waiting >= limit.wait.most
    return Refused(limit, in_flight, "queue_full" if is_queue_full else "limit", waiting)
