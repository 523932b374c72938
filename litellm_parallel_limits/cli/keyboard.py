"""A key pressed while one waits."""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

QUIT = frozenset("qQ\x03\x04")
"""With which one leaves; the last two are Ctrl-C and Ctrl-D."""


class Pause(Protocol):
    """Waits so many seconds, and says whether somebody wants to leave."""

    def __call__(self, seconds: float) -> bool:
        """Return True as soon as a key is pressed with which one leaves."""
        ...


@contextmanager
def pauses() -> Iterator[Pause]:
    """Yield a pause that listens to the keyboard, where there is one that can be listened to."""
    try:
        import termios  # noqa: PLC0415 (not on every system)
        import tty  # noqa: PLC0415 (the same)
    except ImportError:
        yield _deaf
        return
    if not sys.stdin.isatty():
        yield _deaf
        return
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        yield _listening
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _deaf(seconds: float) -> bool:
    time.sleep(seconds)
    return False


def _listening(seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        if select.select([sys.stdin], [], [], left)[0]:
            pressed = os.read(sys.stdin.fileno(), 64)
            if not pressed or not QUIT.isdisjoint(pressed.decode(errors="replace")):
                return True
    return False
