"""What a worker and a backend tell each other in one call."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from litellm_parallel_limits.limits import Answer, Lease, Scope
from litellm_parallel_limits.stores import Holding

UNKNOWN = 0
"""In the place of an epoch: the worker has not been told of any."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """What a worker tells and asks: releases, then renewals, then admissions, in order.

    A worker numbers its calls from 1 upwards. `acknowledged` is the number of its last call that was
    answered, 0 if it holds nothing and that was long ago; `lately` tells that it was so short ago that the
    backend must know of it still. `epoch` is the last that the worker was told.
    """

    worker: str
    number: int
    acknowledged: int
    lately: bool
    epoch: int
    releases: Sequence[Lease] = ()
    renewals: Sequence[Lease] = ()
    admissions: Sequence[Lease] = ()


@dataclass(frozen=True, slots=True)
class Reply:
    """What a backend answers, at `now_ms` by its clock, to so many live `workers`.

    `epoch` is when the backend last found that it had lost leases, in ms by its clock; below zero, when it
    was first called, if it has lost none since. There is one answer for each admission, or None where
    nobody was admitted, because the worker did not know of the epoch: it must renew what it holds, and
    see whether the epoch is settled.
    """

    now_ms: int
    workers: int
    epoch: int
    answers: Sequence[Answer | None]


class Backend(Protocol):
    """Where the workers' calls come together. Whatever it raises, the call may have been carried out."""

    name: str

    def now_ms(self) -> int:
        """Return the time by its clock, as well as it is known without asking."""
        ...

    async def exchange(self, exchange: Exchange) -> Reply:
        """Carry out a call as one. One that comes after a later call of its worker is an error."""
        ...

    def holdings(self) -> AsyncIterator[Sequence[Holding]]:
        """Yield every slot in use, some at a time."""
        ...

    async def free(self, scopes: Sequence[Scope], lease: str | None) -> int:
        """Free the slots in `scopes`, of `lease` only if one is named, and return how many there were."""
        ...


def settling_seconds(ttl: float) -> float:
    """Return how long after a loss leases of other workers may still be missing.

    A time to live: a lease that has not been renewed for so long has lapsed.
    """
    return ttl
