"""What a trace tells of a request's limits."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from litellm_parallel_limits.answers import WAITED, WOULD_REFUSE, Refusal
from litellm_parallel_limits.holder import Holder

PREFIX = "litellm_parallel_limits."
"""Begins the names of the attributes."""

ANSWERED = 200


def trace(auth: Any, holder: Holder, refusal: Refusal | None) -> None:
    """Tell the span of a request what became of it, if there is one, and if it met a limit. Never raises.

    The span is OpenTelemetry's, of LiteLLM's `auth` object: what LiteLLM's router is told to be one may be
    a client's word.
    """
    span = getattr(auth, "parent_otel_span", None)
    tell = None if span is None else getattr(span, "set_attribute", None)
    if not callable(tell) or not (holder.is_holding or refusal):
        return
    told = holder.headers(ANSWERED) if refusal is None else refusal.headers
    attributes: dict[str, object] = {
        "outcome": "admitted" if refusal is None else told["x-parallel-limit-reason"],
        "limit": None if refusal is None else told["x-parallel-limit-name"],
        "limits": sorted({scope.limit for scope in holder.scopes}),
        "would_refuse": told.get(WOULD_REFUSE),
        "waited_ms": int(told.get(WAITED, 0)),
    }
    with suppress(Exception):  # of somebody's tracing: no request may fail for it
        for name, value in attributes.items():
            if value:
                tell(PREFIX + name, value)
