"""Counting what is truly in flight."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import pairwise

ANY = "*"
"""In the place of a model or a caller: all of them together."""


@dataclass
class Count:
    """How many requests are in flight, were at most at once (`peak`), and came altogether (`total`)."""

    in_flight: int = 0
    peak: int = 0
    total: int = 0

    def begin(self) -> None:
        """One more is in flight."""
        self.total += 1
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)

    def end(self) -> None:
        """One less is in flight."""
        self.in_flight -= 1


@dataclass(frozen=True)
class Window:
    """The time from `since` to `until`, in seconds of this machine's monotonic clock."""

    since: float
    until: float

    def __contains__(self, moment: float) -> bool:
        return self.since <= moment < self.until


@dataclass(frozen=True)
class History:
    """How many were in flight: from each moment on, the number beside it, 0 before the first.

    Moments are seconds of the monotonic clock, which every process of a machine shares.
    """

    steps: list[tuple[float, int]] = field(default_factory=list)

    def add(self, in_flight: int) -> None:
        """From now on so many are in flight."""
        self.steps.append((time.monotonic(), in_flight))

    def at(self, moment: float) -> int:
        """Return how many were in flight then."""
        place = bisect_right(self.steps, moment, key=lambda step: step[0])
        return self.steps[place - 1][1] if place else 0

    def peak(self, window: Window) -> int:
        """Return the most that were in flight at once."""
        return max(number for _, number in self._within(window))

    def begun(self, window: Window) -> int:
        """Return how many requests began."""
        numbers = [number for _, number in self._within(window)]
        return sum(max(0, after - before) for before, after in pairwise(numbers))

    def busy_seconds(self, window: Window) -> float:
        """Return the sum of the times that all requests were in flight."""
        steps = [*self._within(window), (window.until, 0)]
        return sum(number * (end - start) for (start, number), (end, _) in pairwise(steps))

    def mean(self, window: Window) -> float:
        """Return how many were in flight on average."""
        return self.busy_seconds(window) / (window.until - window.since)

    def _within(self, window: Window) -> list[tuple[float, int]]:
        return [(window.since, self.at(window.since)), *(step for step in self.steps if step[0] in window)]


@dataclass
class Ledger:
    """The counts by model and caller, by model, by caller, and of everything; each caller's history."""

    counts: defaultdict[tuple[str, str], Count] = field(default_factory=lambda: defaultdict(Count))
    histories: defaultdict[str, History] = field(default_factory=lambda: defaultdict(History))

    @contextmanager
    def holding(self, model: str, caller: str) -> Iterator[Callable[[], None]]:
        """Count one request as in flight until the block ends, or what it is given is called."""
        counts = [self.counts[m, c] for m in (model, ANY) for c in (caller, ANY)]
        history, of_caller = self.histories[caller], self.counts[ANY, caller]
        for count in counts:
            count.begin()
        history.add(of_caller.in_flight)
        with ExitStack() as ending:
            ending.callback(lambda: history.add(of_caller.in_flight))  # called last
            for count in counts:
                ending.callback(count.end)
            yield ending.close

    def forget(self) -> None:
        """Start anew. What is in flight now ends in the counts that were forgotten."""
        self.counts.clear()
        self.histories.clear()

    def count(self, model: str = ANY, caller: str = ANY) -> Count:
        """Return what was counted of `model` and `caller`."""
        return self.counts.get((model, caller), Count())

    def history(self, caller: str) -> History:
        """Return how many requests of `caller` were in flight, and when."""
        return self.histories.get(caller, History())
