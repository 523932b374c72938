"""Counting what is truly in flight."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

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


@dataclass
class Ledger:
    """The counts by model and caller, by model, by caller, and of everything."""

    counts: defaultdict[tuple[str, str], Count] = field(default_factory=lambda: defaultdict(Count))

    @contextmanager
    def holding(self, model: str, caller: str) -> Iterator[None]:
        """Count one request as in flight until the block ends."""
        counts = [self.counts[m, c] for m in (model, ANY) for c in (caller, ANY)]
        for count in counts:
            count.begin()
        try:
            yield
        finally:
            for count in counts:
                count.end()

    def forget(self) -> None:
        """Start anew. What is in flight now ends in the counts that were forgotten."""
        self.counts.clear()

    def count(self, model: str = ANY, caller: str = ANY) -> Count:
        """Return what was counted of `model` and `caller`."""
        return self.counts.get((model, caller), Count())
