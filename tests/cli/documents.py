"""What a proxy may answer."""

from __future__ import annotations

from typing import Any

HOSTILE = "[red]bold[/red] \x1b[31m\x07:smile: <script>alert(1)</script> \u202etxt.exe \ud800" + "x" * 300
"""Markup, escape codes, a bell, what would turn the line around, half a character, and far too much."""


def scope(name: str, in_flight: int, limit: int | None, **more: Any) -> dict[str, Any]:
    """Return a scope of a status."""
    utilization = None if limit is None else in_flight / limit if limit else 1.0
    holders = [
        {"lease": f"{name}-{number}", "model": "gpt-4", "worker": "da8fea37", "age_seconds": 3.2 + number}
        for number in range(in_flight)
    ]
    return {
        "id": f"id-of-{name}",
        "name": name,
        "scope": {"key": "3fa9c1e5", "model": "gpt-4"},
        "limit": limit,
        "in_flight": in_flight,
        "waiting": 0,
        "utilization": utilization,
        "refused_lately": 0,
        "holders": holders,
        **more,
    }


def status(*scopes: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return a status with these scopes on its only page."""
    return {
        "in_flight": sum(one["in_flight"] for one in scopes),
        "waiting": sum(one["waiting"] for one in scopes),
        "refused_lately": sum(one["refused_lately"] for one in scopes),
        "store": "redis",
        "degraded": False,
        "total": len(scopes),
        "page": 1,
        "page_size": 100,
        "total_pages": 1,
        "scopes": list(scopes),
        **more,
    }


BUSY = status(
    scope("model_per_key", 2, 2, refused_lately=3, waiting=1),
    scope("llama-gpu", 4, 5, scope={}),
    scope("observed", 7, 5, scope={"team": "research"}),
    scope("unknown", 1, None),
    scope("blocked", 0, 0, refused_lately=1, scope={"user": "ann"}),
    scope("roomy", 1, 1000, scope={"user": "bob"}),
)

HISTORY: dict[str, Any] = {
    "step_seconds": 5,
    "in_flight": [0.0] * 60 + [number / 10 for number in range(60)] + [6.0, 1.4] * 30,
    "refused": [0] * 170 + [1, 2, 3, 9, 4, 0, 0, 1, 0, 0],
    "limits": {"llama-gpu": {"in_flight": [0.0] * 180, "refused": [0] * 180}},
}

HEALTHY: dict[str, Any] = {
    "status": "healthy",
    "store": "redis",
    "store_ms": 0.8,
    "worker": "da8fea37",
    "workers": 4,
    "in_flight": 3,
    "waiting": 0,
    "last_heartbeat_seconds": 2.1,
    "degraded_seconds": None,
    "version": "0.1.0",
}

DEGRADED = {
    **HEALTHY,
    "status": "degraded",
    "store_ms": None,
    "last_heartbeat_seconds": None,
    "degraded_seconds": 12.0,
}

EXPLANATION: dict[str, Any] = {
    "model": "gpt-4",
    "identities": {"key": "3fa9c1e5", "user": "ann", "team": "research"},
    "limits": [
        {
            "name": "model_per_key",
            "scope": {"key": "3fa9c1e5", "model": "gpt-4"},
            "limit": 2,
            "mode": "enforce",
            "source": "key metadata model_max_parallel_requests",
            "overridden": [{"source": "team metadata model_max_parallel_requests", "limit": 5}],
            "invalid": ["key model_max_budget max_parallel_requests"],
            "wait": None,
        },
        {
            "name": "llama-gpu",
            "scope": {},
            "limit": 5,
            "mode": "observe",
            "source": "parallel_limits.limits[2]",
            "overridden": [],
            "invalid": [],
            "wait": {"max_seconds": 30.0, "max_waiting": 100, "fair_by": "user"},
        },
    ],
    "not_met": [{"name": "research-gpt4", "why": "where: team is not one of research-*"}],
}
