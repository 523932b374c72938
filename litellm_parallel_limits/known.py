"""Requests that say what one has said a moment ago: they ask for the same calls."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from copy import deepcopy
from functools import cache, partial
from operator import attrgetter
from typing import Any, NamedTuple

from litellm_parallel_limits import native_field
from litellm_parallel_limits.calls import NAMES, TABLES, tags
from litellm_parallel_limits.sources import Call
from litellm_parallel_limits.tables import table

KNOWN_SECONDS = 1.0
"""For which it is known what a request asks for: a change of what does not come with it, of LiteLLM's models
or of a record that is looked up, is met a second later. Ours: LiteLLM's caches keep records for longer."""

MOST_KNOWN = 10_000
"""Requests that say something else. Ours: some 30 MB at worst, and then all are forgotten."""

LONGEST_NAMES = 1_000
"""Characters in the names of a request that is remembered: strangers choose some of them."""


class Said(NamedTuple):
    """All of a request that decides over its calls: `names` that are looked up, and `tables` to compare."""

    names: Hashable
    tables: tuple[Any, ...]


class Asking(NamedTuple):
    """The calls that a request asks for, and what its key may be called in public."""

    calls: tuple[Call, ...]
    key_name: str


class Known:
    """Remembers what requests ask for. `clock` returns seconds that never go back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[Hashable, tuple[float, tuple[Any, ...], Asking]] = {}

    def get(self, said: Said) -> Asking | None:
        """Return what a request asks for that says the same as one before, None if there was none."""
        try:
            until, tables, asking = self._known[said.names]
            return asking if self._clock() < until and tables == said.tables else None
        except Exception:  # noqa: BLE001 (names that are lists, tables that cannot be compared: strangers')
            return None

    def keep(self, said: Said, asking: Asking) -> None:
        """Remember what a request asks for, if it can be told from others."""
        try:
            if len(repr(said.names)) > LONGEST_NAMES:
                return
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            # A copy: somebody may change the tables, and then they are not what was said.
            self._known[said.names] = (self._clock() + KNOWN_SECONDS, deepcopy(said.tables), asking)
        except Exception:  # noqa: BLE001, S110 (the same)
            pass


def said(auth: Any, data: Mapping[str, Any], call_type: str) -> Said:
    """Return what a request says: LiteLLM's `auth` object and, as its hooks see it, the request itself."""
    body = table(table(data.get("proxy_server_request")).get("body"))
    kind: type = type(auth)
    read = _reader(kind)
    names = (read.names(auth), data.get("model"), body.get("model"), call_type, *tags(data))
    return Said(names, (native_field.taken(auth), read.tables(auth)))


class _Reader(NamedTuple):
    names: Callable[[Any], Any]
    tables: Callable[[Any], Any]


@cache
def _reader(kind: type) -> _Reader:
    """Return what reads the fields of an auth object of this kind: not every version of LiteLLM has all."""
    fields = getattr(kind, "model_fields", None)
    if fields is None or kind.model_config.get("extra") == "allow":  # type: ignore[attr-defined]  # pydantic's
        return _Reader(partial(_any, NAMES), partial(_any, TABLES))
    there = ([name for name in names if name in fields or hasattr(kind, name)] for names in (NAMES, TABLES))
    return _Reader(*(attrgetter(*names) for names in there))


def _any(names: tuple[str, ...], auth: Any) -> tuple[object, ...]:
    return tuple(getattr(auth, name, None) for name in names)
