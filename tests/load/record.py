"""What one run has seen, and what follows from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from tests.load.clients import End, Outcome
from tests.load.holdings import Held
from tests.load.parties import LIMIT
from tests.load.watch import Sample
from tests.rig.ledger import History, Window

SETTLED = 1.0
"""For so many seconds everything must be right to count as exact."""

STEP = 0.1
"""From the beginning of one such second to that of the next, in seconds."""

LEAST_SAMPLES = 3
"""In a second, of the ten that are planned: a store that does not tell is not known to be exact."""


@dataclass(frozen=True)
class Strike:
    """A fault: begun `at` a moment of the monotonic clock, and `over` at another."""

    at: float
    over: float


@dataclass(frozen=True)
class Record:
    """A run: the clients asked during `whole`, and had warmed up during `measured`.

    `histories` are the provider's, by party; `samples` are the store's. `left` is what the store held once
    nothing was in flight any more, `left_later` one time to live after that. `first_admitted` tells
    whether the first of two requests at a limit of 1 was admitted, and the other refused.
    """

    whole: Window
    measured: Window
    outcomes: Sequence[Outcome]
    histories: Mapping[str, History]
    samples: Sequence[Sample]
    left: Held | None
    left_later: Held | None
    first_admitted: bool
    strikes: Sequence[Strike] = ()

    def ends(self, party: str | None = None) -> Counter[str]:
        """Return how many requests had each end."""
        return Counter(outcome.end for outcome in self.outcomes if party in (None, outcome.party))

    @property
    def server_errors(self) -> int:
        """How many requests were answered by a status from 500 on."""
        return sum((outcome.status or 0) >= 500 for outcome in self.outcomes)

    def peak(self, window: Window) -> int:
        """Return the most that a party had in flight at the provider."""
        return max(history.peak(window) for history in self.histories.values())

    def added(self, window: Window, party: str | None = None, end: End | None = None) -> list[float]:
        """Return the seconds added to the requests that were under way in `window`, sorted."""
        return sorted(
            outcome.added
            for outcome in self.outcomes
            if outcome.added is not None
            and party in (None, outcome.party)
            and end in (None, outcome.end)
            and outcome.sent < window.until
            and outcome.ended >= window.since
        )

    def exact_again(self, strike: Strike) -> float | None:
        """Return the moment from which on the count is exact once the fault is over; None if it never is.

        From then on no party is over its limit any more.
        """
        for second in self._seconds(Window(strike.over, self.whole.until)):
            rest = Window(second.since, self.whole.until)
            if self._is_exact(second) and self.peak(rest) <= LIMIT:
                return second.since
        return None

    def is_exact_once(self, window: Window) -> bool:
        """Whether there is a second in the window in which the count is exact."""
        return any(self._is_exact(second) for second in self._seconds(window))

    def _seconds(self, window: Window) -> Iterator[Window]:
        for step in range(int((window.until - window.since - SETTLED) / STEP) + 1):
            since = window.since + step * STEP
            yield Window(since, since + SETTLED)

    def _is_exact(self, second: Window) -> bool:
        """Whether each party was within its limit, was admitted where it had room, and was counted."""
        samples = [sample for sample in self.samples if sample.moment in second]
        return all(
            history.peak(second) <= LIMIT
            and (history.begun(second) > 0 or history.mean(second) > LIMIT - 0.5)
            and _agree(samples, party, history)
            for party, history in self.histories.items()
        )


def _agree(samples: Sequence[Sample], party: str, history: History) -> bool:
    """Whether the store knew what the provider held.

    A slot is held a moment longer than the provider is busy, on the request's way there and back: so it
    must be so more often than not, not always.
    """
    off = [
        sample.held.get(party, 0) - history.at(sample.moment) for sample in samples if sample.held is not None
    ]
    return len(off) == len(samples) >= LEAST_SAMPLES and not median(off)
