"""How workers of one machine wake one another."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(slots=True, eq=False)
class Bell:
    """What others ring when there is something to be seen to."""

    _rung: asyncio.Event = field(default_factory=asyncio.Event)

    async def rung(self, seconds: float) -> None:
        """Return once it was rung since the last time, or when so many `seconds` are over."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._rung.wait(), seconds)
        self._rung.clear()

    def ring(self) -> None:
        """Let who waits for it know."""
        self._rung.set()


class Bells:
    """A named pipe for each worker that listens, beside the file `path`.

    A pipe needs no port and no folder of its own, and may have a long name. Where it fails, those that
    listen look from time to time nevertheless.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @asynccontextmanager
    async def listening(self, worker: str) -> AsyncIterator[Bell]:
        """Give the worker its bell in the block."""
        bell, pipe = Bell(), self._pipe(worker)
        try:
            with suppress(FileExistsError):
                os.mkfifo(pipe, 0o600)
            descriptor = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)  # for writing too, or it would end at once
        except OSError:
            yield bell
            return
        loop = asyncio.get_running_loop()
        loop.add_reader(descriptor, _heard, descriptor, bell)
        try:
            yield bell
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)
            pipe.unlink(missing_ok=True)

    def ring(self, workers: Iterable[str]) -> None:
        """Ring the bells of `workers`."""
        for worker in workers:
            with suppress(OSError):  # it is gone, or was rung so often that it is awake
                descriptor = os.open(self._pipe(worker), os.O_WRONLY | os.O_NONBLOCK)
                try:
                    os.write(descriptor, b"!")
                finally:
                    os.close(descriptor)

    def forget(self, workers: Iterable[str]) -> None:
        """Take away the bells of `workers` that have died."""
        for worker in workers:
            with suppress(OSError):
                self._pipe(worker).unlink(missing_ok=True)

    def _pipe(self, worker: str) -> Path:
        return Path(f"{self._path}-{worker}")


def _heard(descriptor: int, bell: Bell) -> None:
    with suppress(OSError):
        os.read(descriptor, 4096)
    bell.ring()
