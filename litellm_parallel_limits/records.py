"""What LiteLLM's records say, read without ever holding up a request for long."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping

from cachetools import LRUCache, TTLCache

from litellm_parallel_limits.background import start
from litellm_parallel_limits.deadlines import wait
from litellm_parallel_limits.errors import NoRecordError
from litellm_parallel_limits.events import LookUpFailed, Observer
from litellm_parallel_limits.sources import Record

Found = Mapping[Record, Mapping[str, object]]
"""Records by name; empty if there is none."""

LookUp = Callable[[], Awaitable[Found]]

DEADLINE_SECONDS = 0.25
"""For all look-ups of a request together: as long as it may wait for the store."""

NOTHING_SECONDS = 5.0
"""For which it is remembered that there is no record, or that it could not be read: as long as LiteLLM
remembers of its own accord (`DEFAULT_IN_MEMORY_TTL`)."""

MOST_REMEMBERED = 10_000
"""Parties whose records are remembered. Ours: some 10 MB at worst."""

MOST_RUNNING = 1_000
"""Look-ups under way; further ones find what was known. Ours: a database that hangs must not fill memory."""


class Records:
    """Looks up the records of a request's parties, beside one another and under one deadline.

    LiteLLM's look-ups have caches of their own, so nothing that was found is kept here but for the time
    when one fails: then what was last found holds. `observer` is told of failures.
    """

    def __init__(
        self,
        *,
        observer: Observer = lambda _: None,
        deadline: float = DEADLINE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._observer = observer
        self._deadline = deadline
        self._known: LRUCache[Hashable, Found] = LRUCache(MOST_REMEMBERED)
        self._resting: TTLCache[Hashable, None] = TTLCache(MOST_REMEMBERED, NOTHING_SECONDS, clock)
        self._running: dict[Hashable, asyncio.Task[None]] = {}
        self._late: set[Hashable] = set()

    async def of(self, look_ups: Mapping[Hashable, LookUp]) -> Found:
        """Return what the look-ups find, each named by whose record it reads."""
        tasks = {
            whose: self._look_up(whose, look_up)
            for whose, look_up in look_ups.items()
            if self._is_worth_waiting_for(whose)
        }
        if tasks:
            await wait(self._deadline, *tasks.values())
        for whose, task in tasks.items():
            if not task.done() and whose not in self._late:
                self._late.add(whose)
                self._observer(LookUpFailed(TimeoutError(f"not read in {self._deadline:g} s")))
        return self._all_known(look_ups)

    def _is_worth_waiting_for(self, whose: Hashable) -> bool:
        if whose in self._running:
            return whose not in self._late
        return whose not in self._resting and len(self._running) < MOST_RUNNING

    def _all_known(self, whose: Iterable[Hashable]) -> Found:
        found: dict[Record, Mapping[str, object]] = {}
        for one in whose:
            for record, fields in self._known.get(one, {}).items():
                found[record] = {**found.get(record, {}), **fields}
        return found

    def _look_up(self, whose: Hashable, look_up: LookUp) -> asyncio.Task[None]:
        if whose not in self._running:
            self._running[whose] = start(self._find(whose, look_up))
        return self._running[whose]

    async def _find(self, whose: Hashable, look_up: LookUp) -> None:
        """Find the record, however long it takes: who cannot wait goes on with what was known."""
        try:
            found = await look_up()
        except NoRecordError:  # what was known holds
            self._resting[whose] = None
        except Exception as error:  # noqa: BLE001 (of databases, caches, networks: no reason to fail)
            self._resting[whose] = None
            self._observer(LookUpFailed(error))
        else:
            self._found(whose, found)
        finally:
            del self._running[whose]
            self._late.discard(whose)

    def _found(self, whose: Hashable, found: Found) -> None:
        if found:
            self._known[whose] = found
            self._resting.pop(whose, None)
        else:
            self._known.pop(whose, None)
            self._resting[whose] = None
