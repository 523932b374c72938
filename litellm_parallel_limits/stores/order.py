"""Whose turn it is among those that wait."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from litellm_parallel_limits.limits import Limit, Patience

PRIORITY_SECONDS = 5
"""What one step of priority is worth: who is one step less urgent has waited as much longer when it goes
first. Ours: nobody starves, and within half a minute a batch ten steps below goes before nobody."""

MOST_PASSES = 8
"""Turns that a request may miss for want of a slot in another limit. Then its limits are closed to others."""

MOST_TURNS = 8
"""Looked at in one call: a bound on how long Redis is busy with it. What is left comes with the next."""


def lane(limits: Sequence[Limit], patience: Patience) -> str:
    """Return what requests have in common that can all go on when the first of them can.

    They meet the same limits at the same numbers, and take turns with others in the same way.
    """
    told = [str(patience.priority)]
    for limit in limits:
        flow = "" if limit.wait is None else limit.wait.flow
        told += (limit.scope.key, str(limit.capacity), limit.mode, flow)
    return hashlib.sha256(" ".join(told).encode()).hexdigest()[:32]
