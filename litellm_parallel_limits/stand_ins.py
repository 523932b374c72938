"""What LiteLLM's look-ups are handed in the place of LiteLLM's own database and cache."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable
from typing import Any


class NoRows:
    """In the place of a database, where LiteLLM has none: every table of it is empty.

    LiteLLM's look-ups want one before they look into their cache.
    """

    def __getattr__(self, name: str) -> Any:
        return self

    async def find_unique(self, **_: object) -> None:
        """Find nothing."""

    async def find_first(self, **_: object) -> None:
        """Find nothing."""

    async def find_many(self, **_: object) -> list[Any]:
        """Find nothing."""
        return []


class OnlyRead:
    """A cache of LiteLLM's, to be read: what is not there because there is no database is no news to it."""

    def __init__(self, cache: Any) -> None:
        self._cache = cache

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)

    async def async_set_cache(self, *_: object, **__: object) -> None:
        """Keep nothing."""


class Watched:
    """A database whose failures are noted: some of LiteLLM's look-ups keep them to themselves."""

    def __init__(self, database: Any, failures: list[Exception]) -> None:
        self._database = database
        self._failures = failures

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._database, name)
        return found if isinstance(found, (str, int, float, type(None))) else Watched(found, self._failures)

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Call what the database has here."""
        answer = self._database(*args, **options)
        return self._noted(answer) if inspect.isawaitable(answer) else answer

    async def _noted(self, answer: Awaitable[Any]) -> Any:
        try:
            return await answer
        except Exception as error:
            self._failures.append(error)
            raise
