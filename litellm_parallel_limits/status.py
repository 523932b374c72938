"""What is in flight now, as a document."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from litellm_parallel_limits.answers import shown, shown_scope
from litellm_parallel_limits.limits import Scope
from litellm_parallel_limits.stores import Holding, Snapshot

Document = dict[str, Any]


def document(snapshot: Snapshot, *, store: str, ttl: float) -> Document:
    """Return the status: every scope with something in flight, and who holds it.

    `in_flight` at the top counts leases, each once, however many limits it is counted in.
    """
    scopes: dict[Scope, list[Holding]] = defaultdict(list)
    for holding in snapshot.holdings:
        scopes[holding.scope].append(holding)
    return {
        "in_flight": len({holding.lease for holding in snapshot.holdings}),
        "store": store,
        "degraded": not snapshot.is_whole,
        "scopes": [
            {**_scope(scope, held, snapshot.now_ms, ttl), "waiting": snapshot.waiting.get(scope, 0)}
            for scope, held in sorted(scopes.items(), key=_name)
        ],
    }


def _name(item: tuple[Scope, list[Holding]]) -> str:
    return item[0].key


def _scope(scope: Scope, holdings: list[Holding], now_ms: int, ttl: float) -> Document:
    return {
        "name": scope.limit,
        "scope": shown_scope(scope),
        "limit": _capacity(holdings, now_ms - ttl * 1000),
        "in_flight": len(holdings),
        "waiting": 0,
        "holders": [
            _holder(holding, now_ms) for holding in sorted(holdings, key=lambda held: held.started_ms)
        ],
    }


def _capacity(holdings: list[Holding], since_ms: float) -> int:
    """Return the lowest number that holders admitted since `since_ms` met, else that of the newest."""
    recent = [holding.capacity for holding in holdings if holding.started_ms >= since_ms]
    return min(recent) if recent else max(holdings, key=lambda held: held.started_ms).capacity


def _holder(holding: Holding, now_ms: int) -> Document:
    return {
        "lease": holding.lease,
        "model": shown(holding.model),
        "worker": holding.worker,
        "age_seconds": round(max(0, now_ms - holding.started_ms) / 1000, 1),
    }
