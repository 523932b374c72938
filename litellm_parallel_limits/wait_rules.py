"""How long a call may wait, whose turn it takes, and how urgent it is."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from litellm_parallel_limits.limits import LONGEST_WAIT_SECONDS, Scope, Wait
from litellm_parallel_limits.sources import Call, Dimension, Record

SECONDS = "parallel_limits_wait_seconds"
PRIORITY = "parallel_limits_priority"
RECORDS: tuple[Record, ...] = ("key metadata", "team metadata")
"""Where LiteLLM's records say so, in order."""

MOST_WAITING = 100
"""In a scope, where an operator says nothing else. Ours: about what a worker serves in the usual wait."""

MOST_URGENT = 1000
"""Priorities are cut to this far from 0, on either side: it is worth more than anybody may wait."""

LONGEST_NUMBER = 32
"""Characters of a number that is read: more are no time, and no priority, that anybody means."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class WaitRule:
    """How requests wait for a limit: `seconds` at most, `most` of them in a scope, fair by `fair_by`.

    Those with the same identity there take turns as one; with none they go in the order in which they came.
    """

    seconds: float
    most: int = MOST_WAITING
    fair_by: Dimension | None = "user"

    def of(self, call: Call, seconds: float | None = None) -> Wait | None:
        """Return how `call` waits, so many `seconds` if its own records say; None if not at all."""
        waits = self.seconds if seconds is None else seconds
        return Wait(waits, self.most, self._flow(call)) if waits > 0 else None

    def _flow(self, call: Call) -> str:
        if self.fair_by is None:
            return ""
        return Scope("", tuple((self.fair_by, one.id) for one in call.of(self.fair_by))).key


BY_RECORD = WaitRule(0.0)
"""For a call whose records say how long it waits, where the operator says nothing of how."""


def own_seconds(call: Call, on_invalid: Callable[[str], None]) -> float | None:
    """Return how many seconds the call's key, else its team, may wait; None if neither says."""
    return _said(call, SECONDS, _seconds, on_invalid)


def priority(call: Call, on_invalid: Callable[[str], None]) -> int:
    """Return how urgent the call's key is, else its team: lower goes first, and 0 is usual."""
    said = _said(call, PRIORITY, _priority, on_invalid)
    return 0 if said is None else said


def _said(
    call: Call, name: str, read: Callable[[object], _T], on_invalid: Callable[[str], None]
) -> _T | None:
    for record in RECORDS:
        value = call.records.get(record, {}).get(name)
        if value is None:
            continue
        try:
            return read(value)
        except (TypeError, ValueError, OverflowError):
            on_invalid(f"{name}: {record}")
    return None


def _seconds(value: object) -> float:
    seconds = _number(value)
    if not seconds >= 0:
        raise ValueError("less than no time")
    return min(seconds, LONGEST_WAIT_SECONDS)


def _priority(value: object) -> int:
    number = _number(value)
    if not number.is_integer():
        raise ValueError("not a whole number")
    return int(max(-MOST_URGENT, min(MOST_URGENT, number)))


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError("not a number")
    number = float(value[:LONGEST_NUMBER] if isinstance(value, str) else value)
    if not math.isfinite(number):
        raise ValueError("not a number that one can count to")
    return number
