"""What the operator's log is told."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from litellm_parallel_limits.answers import shown_scope
from litellm_parallel_limits.events import Event, InvalidLimit, LookUpFailed, StoreFailed, StoreRecovered
from litellm_parallel_limits.limits import Admitted, Limit, Refused

QUIET_SECONDS = 60.0
"""Without a refusal, until a limit counts as refusing no more. Ours: rates are looked at by the minute."""

Later = Callable[[float, Callable[[], None]], object]
"""Calls a function after so many seconds."""

logger = logging.getLogger("litellm_parallel_limits")


def later(seconds: float, call: Callable[[], None]) -> None:
    """Call a function after so many seconds, in the event loop that runs."""
    asyncio.get_running_loop().call_later(seconds, call)


@dataclass(slots=True)
class _Refusing:
    """A limit that refuses: how many requests so far, and when the last one."""

    refused: int
    last: float


class Log:
    """Writes one line when something begins and one when it ends, and none for each request.

    That is: the store goes and is back, a limit refuses and refuses no more, LiteLLM's records cannot be
    read; and each source of bad values once. Each line has its facts as fields beside, for logs that are
    read by programs (LiteLLM's `json_logs`). `clock` returns seconds that never go back.
    """

    hears = (Admitted, Refused, StoreFailed, StoreRecovered, InvalidLimit, LookUpFailed)

    def __init__(self, clock: Callable[[], float] = time.monotonic, later: Later = later) -> None:
        self._clock = clock
        self._later = later
        self._store_is_out = False
        self._invalid: set[str] = set()
        self._refusing: dict[str, _Refusing] = {}
        self._unread: set[str] = set()

    def __call__(self, event: Event) -> None:
        """Take note of what happened."""
        match event:
            case Admitted() if event.lease.apart:
                for limit, count in event.overrun:
                    self._refused(limit, count - 1, "would refuse")
            case Refused(limit, in_flight):
                self._refused(limit, in_flight, "refuses")
            case StoreFailed(operation, error) if not self._store_is_out:
                self._store_is_out = True
                _tell(
                    logging.ERROR,
                    f"the store is out ({operation}: {error}); on_store_failure holds",
                    event="store_out",
                    operation=operation,
                )
            case StoreRecovered() if self._store_is_out:
                self._store_is_out = False
                _tell(logging.WARNING, "the store is back", event="store_back")
            case InvalidLimit(source) if source not in self._invalid:
                self._invalid.add(source)
                text = f"ignored a value that is no number of its kind ({source})"
                _tell(logging.WARNING, text, event="invalid_limit", source=source)
            case LookUpFailed(error) if (kind := type(error).__name__) not in self._unread:
                self._unread.add(kind)  # its text may be a secret
                text = f"LiteLLM's records could not be read ({kind}); what was known of them holds"
                _tell(logging.WARNING, text, event="look_up_failed", error=kind)
            case _:
                pass

    def _refused(self, limit: Limit, in_flight: int, does: str) -> None:
        name = limit.scope.limit
        now = self._clock()
        if name not in self._refusing:
            _tell_of_refusals(limit, in_flight, does)
            self._later(QUIET_SECONDS, partial(self._look, name))
            self._refusing[name] = _Refusing(0, now)
        self._refusing[name].refused += 1
        self._refusing[name].last = now

    def _look(self, name: str) -> None:
        """Tell that a limit refuses no more, once it has not for long enough."""
        refusing = self._refusing[name]
        left = QUIET_SECONDS - (self._clock() - refusing.last)
        if left > 0:
            self._later(left, partial(self._look, name))
            return
        del self._refusing[name]
        text = f"'{name}' refuses no more, after {refusing.refused}"
        _tell(logging.WARNING, text, event="refuses_no_more", limit=name, refused=refusing.refused)


def _tell_of_refusals(limit: Limit, in_flight: int, does: str) -> None:
    scope = shown_scope(limit.scope)
    where = ", ".join(f"{what}={who}" for what, who in scope.items())
    _tell(
        logging.WARNING,
        f"'{limit.scope.limit}' {does}: {in_flight} of {limit.capacity} in flight"
        + (f" for {where}" if where else ""),
        event=does.replace(" ", "_"),
        limit=limit.scope.limit,
        scope=scope,
        in_flight=in_flight,
        capacity=limit.capacity,
    )


def _tell(level: int, text: str, **facts: object) -> None:
    logger.log(level, "Parallel limits: %s", text, extra=facts)
