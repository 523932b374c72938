"""How long a slot is held, as measured in this worker."""

from __future__ import annotations

from collections import OrderedDict, deque

from litellm_parallel_limits.events import Event, Released
from litellm_parallel_limits.limits import Limit

WEIGHT = 0.2
"""Of the newest hold in the moving average: about the last ten count (2 / weight, as usual for an EWMA)."""

MOST_SCOPES = 1000
"""Remembered, the latest used: a bound on memory, whatever identities clients invent."""


MOST_RELEASES = 1000
"""Kept until somebody wants to know: enough for any average, and who is admitted pays for none."""


class HoldTimes:
    """Moving averages of how many seconds slots were held, for each scope and each limit."""

    hears = (Released,)

    def __init__(self) -> None:
        self._by_scope: OrderedDict[str, float] = OrderedDict()
        self._by_limit: dict[str, float] = {}
        self._ended: deque[Released] = deque(maxlen=MOST_RELEASES)

    def __call__(self, event: Event) -> None:
        """Take note of a lease that ended."""
        if isinstance(event, Released):
            self._ended.append(event)

    def seconds(self, limit: Limit) -> float | None:
        """Return how long a slot of this scope is held, else one of this limit; None if unknown."""
        while self._ended:
            ended = self._ended.popleft()
            for one in ended.lease.limits:
                self._note(one, ended.held_seconds)
        return self._by_scope.get(limit.scope.key, self._by_limit.get(limit.scope.limit))

    def _note(self, limit: Limit, seconds: float) -> None:
        key, name = limit.scope.key, limit.scope.limit
        self._by_scope[key] = _moved(self._by_scope.get(key), seconds)
        self._by_scope.move_to_end(key)
        if len(self._by_scope) > MOST_SCOPES:
            self._by_scope.popitem(last=False)
        self._by_limit[name] = _moved(self._by_limit.get(name), seconds)


def _moved(average: float | None, seconds: float) -> float:
    return seconds if average is None else average + WEIGHT * (seconds - average)
