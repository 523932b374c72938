"""Who is admitted to a store of this machine. What it does, exchange.lua does in Redis, in the same way."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from litellm_parallel_limits.limits import Admitted, Answer, Limit, Refused
from litellm_parallel_limits.stores.exchange import Ask, Stands, refused_of
from litellm_parallel_limits.stores.line import Line, Slots

_Counted = tuple[Limit, int]


def admit(ask: Ask, slots: Slots, line: Line | None) -> Answer | Stands:
    """Say what becomes of who asks, and let it wait if so. Who is admitted is still to be given the slots.

    `line` are those that wait, None if nobody does or may.
    """
    counted = [(limit, slots.count(limit.scope)) for limit in ask.lease.limits]
    home = None if line is None or ask.patience is None else line.home(ask.lease)
    if line is not None and home is not None:  # of a call of which the reply was lost
        return Stands(home, dict(counted)[home], line.waiting(home.scope) - 1)
    lacking = [(limit, count) for limit, count in counted if _lacks(limit, count, line)]
    if not lacking:
        lease = replace(ask.lease, apart=True) if is_apart(counted) else ask.lease
        return Admitted(lease, tuple([count + 1 for _, count in counted]))
    if line is None:
        return refused_of(ask, *lacking[0], waiting=0)
    return _wait(ask, lacking, line)


def is_apart(counted: Iterable[_Counted]) -> bool:
    """Whether an observed limit would have refused, that so many hold."""
    return any(count >= limit.capacity and limit.observed for limit, count in counted)


def _lacks(limit: Limit, count: int, line: Line | None) -> bool:
    if count >= limit.capacity:
        return not limit.observed
    return line is not None and not limit.observed and line.closed(limit.scope)


def _wait(ask: Ask, lacking: Sequence[_Counted], line: Line) -> Refused | Stands:
    """Let who asks wait for the first limit that is `lacking`, if all of them may be waited for."""
    impatient = (one for one in lacking if ask.patience is None or not one[0].may_be_waited_for)
    limit, count = next(impatient, lacking[0])
    waiting = line.waiting(limit.scope)
    wait = limit.wait if ask.patience is not None and limit.may_be_waited_for else None
    if ask.patience is None or wait is None or waiting >= wait.most:
        return refused_of(ask, limit, count, waiting)
    line.join(ask.lease, limit, ask.patience)
    return Stands(limit, count, waiting)
