"""What the operator's log is told."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from litellm_parallel_limits.answers import shown_scope
from litellm_parallel_limits.events import Event, InvalidLimit, LookUpFailed, StoreFailed, StoreRecovered
from litellm_parallel_limits.limits import Admitted, Limit, Refused

QUIET_SECONDS = 60.0
"""Without a refusal, until a limit counts as refusing no more. Ours: rates are looked at by the minute."""

logger = logging.getLogger("litellm_parallel_limits")


@dataclass(slots=True)
class _Refusing:
    """A limit that refuses: how many requests so far, and when the last one."""

    refused: int
    last: float


class Log:
    """Writes one line when something begins and one when it ends, and none for each request.

    That is: the store goes and is back, a limit refuses and refuses no more, LiteLLM's records cannot be
    read; and each source of bad values once. `clock` returns seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._store_is_out = False
        self._invalid: set[str] = set()
        self._refusing: dict[str, _Refusing] = {}
        self._unread: set[str] = set()

    def __call__(self, event: Event) -> None:
        """Take note of what happened."""
        match event:
            case Admitted():
                self._admitted(event)
            case Refused(limit, in_flight):
                self._refused(limit, in_flight, "refuses")
            case StoreFailed(operation, error) if not self._store_is_out:
                self._store_is_out = True
                logger.error(
                    "Parallel limits: the store is out (%s: %s); on_store_failure holds", operation, error
                )
            case StoreRecovered() if self._store_is_out:
                self._store_is_out = False
                logger.warning("Parallel limits: the store is back")
            case InvalidLimit(source) if source not in self._invalid:
                self._invalid.add(source)
                logger.warning("Parallel limits: ignored a value that is no number of its kind (%s)", source)
            case LookUpFailed(error) if (kind := type(error).__name__) not in self._unread:
                self._unread.add(kind)
                logger.warning(
                    "Parallel limits: LiteLLM's records could not be read (%s); what was known of them holds",
                    kind,  # its text may be a secret
                )
            case _:
                pass

    def _refused(self, limit: Limit, in_flight: int, does: str) -> None:
        name = limit.scope.limit
        if name not in self._refusing:
            self._refusing[name] = _Refusing(0, 0.0)
            where = ", ".join(f"{what}={who}" for what, who in shown_scope(limit.scope).items())
            logger.warning(
                "Parallel limits: '%s' %s: %s of %s in flight%s",
                name,
                does,
                in_flight,
                limit.capacity,
                f" for {where}" if where else "",
            )
        self._refusing[name].refused += 1
        self._refusing[name].last = self._clock()

    def _admitted(self, admitted: Admitted) -> None:
        for limit, count in admitted.overrun:
            self._refused(limit, count - 1, "would refuse")
        if self._refusing:
            for limit in admitted.lease.limits:
                self._let_in(limit.scope.limit)

    def _let_in(self, name: str) -> None:
        refusing = self._refusing.get(name)
        if refusing is not None and self._clock() - refusing.last >= QUIET_SECONDS:
            del self._refusing[name]
            logger.warning("Parallel limits: '%s' refuses no more, after %s", name, refusing.refused)
