"""The wall clock of a proxy, set to what a test wants it to be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

LIBRARIES = Path("/usr/lib")
LIBRARY = "*/faketime/libfaketimeMT.so.1"
"""Debian's `faketime`: what a process sees of the time when this is loaded before all else."""


@dataclass(frozen=True)
class WallClock:
    """The time in the processes that have `env`; the monotonic clock is the machine's."""

    file: Path

    @classmethod
    def ahead(cls, folder: Path, seconds: float = 0) -> WallClock:
        """Return a clock that is so far ahead of the machine's."""
        clock = cls(folder / "faketime")
        clock.jump(seconds)
        return clock

    @property
    def env(self) -> Mapping[str, str]:
        """The environment of a process that goes by this clock."""
        (library,) = LIBRARIES.glob(LIBRARY)
        return {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def jump(self, seconds: float) -> None:
        """Be so far ahead of the machine's clock from now on."""
        self.file.write_text(f"{seconds:+f}\n")
