"""What is found in a configuration before any proxy reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Place:
    """A line of a file, the first of which is 1."""

    file: str
    line: int


@dataclass(frozen=True, slots=True)
class Finding:
    """An error: the proxy does not start, or limits less than it is told. A warning: hardly meant so."""

    level: Literal["error", "warning"]
    told: str
    place: Place | None = None


@dataclass(frozen=True, slots=True)
class Explained:
    """A limit, and what it does in words."""

    name: str
    words: str
    place: Place | None


@dataclass(frozen=True, slots=True)
class Report:
    """What a configuration does, and what is wrong with it."""

    limits: tuple[Explained, ...] = ()
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()

    def count(self, level: str) -> int:
        """Return how many findings there are of a level."""
        return sum(finding.level == level for finding in self.findings)
