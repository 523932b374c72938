"""A clock that moves only when it is told to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Clock:
    """Seconds since some day, to be given where a clock is asked for."""

    now: float = 1_000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
