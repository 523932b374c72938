"""What a trace tells of a request's limits."""

from __future__ import annotations

from typing import Any

from litellm_parallel_limits.answers import WAITED, WOULD_REFUSE, Refusal
from litellm_parallel_limits.holder import Holder

PREFIX = "litellm_parallel_limits."
"""Begins the names of the attributes."""

ANSWERED = 200


def trace(span: Any, holder: Holder, refusal: Refusal | None) -> None:
    """Tell LiteLLM's `span` of a request what became of it, if there is one, and if it met a limit.

    `span` is of OpenTelemetry, or None: nothing of that is imported.
    """
    if span is None or not (holder.is_holding or refusal):
        return
    told = holder.headers(ANSWERED) if refusal is None else refusal.headers
    attributes: dict[str, object] = {
        "outcome": "admitted" if refusal is None else told["x-parallel-limit-reason"],
        "limit": None if refusal is None else told["x-parallel-limit-name"],
        "limits": sorted({scope.limit for scope in holder.scopes}),
        "would_refuse": told.get(WOULD_REFUSE),
        "waited_ms": int(told.get(WAITED, 0)),
    }
    for name, value in attributes.items():
        if value:
            span.set_attribute(PREFIX + name, value)
