"""What a client is told."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from litellm_parallel_limits.limits import Admitted, Refused, Scope

LONGEST_SHOWN = 64
"""Characters of an identity that a message shows."""

LONGEST_RETRY_SECONDS = 60.0
"""What the OpenAI and Anthropic SDKs accept as retry-after at most."""

SHORTEST_RETRY_SECONDS = 0.1
"""Ours: below it a client would only knock more often than a slot can come free."""

UNKNOWN_RETRY_SECONDS = 1.0
"""While no hold time is known."""

JITTER = 0.25
"""Of the wait, added at random: clients that were refused together do not return together."""

SHORT_HASH = 8
"""Hex digits of a key's hash that stand for it."""

REFUSED_STATUS = 429

WOULD_REFUSE = "x-parallel-limit-would-refuse"
"""The header that names the observed limits which would have refused."""

WAITED = "x-parallel-limit-waited-ms"
"""The header that tells how long a request waited for its slots."""

Headers = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Refusal:
    """The answer to a refused request: `status` is 429, or 503 where the limit could not be checked.

    It `may_be_waited_for` where the limit that refused lets requests wait, and this one did not.
    """

    status: int
    message: str
    headers: Headers
    may_be_waited_for: bool = False


def admitted_headers(*admitted: Admitted) -> Headers:
    """Return the number and the room left of each limit that the request met.

    Where it met several scopes of one limit, those of the scope with less room. Observed limits that would
    have refused it are named.
    """
    room: dict[str, tuple[int, int]] = {}
    for one in admitted:
        for limit, count in one.counts():
            left, name = (max(0, limit.capacity - count), limit.capacity), limit.scope.limit
            room[name] = min(left, room[name]) if name in room else left
    headers = {}
    for name, (left_over, capacity) in room.items():
        headers[f"x-ratelimit-{name}-limit-max_parallel_requests"] = str(capacity)
        headers[f"x-ratelimit-{name}-remaining-max_parallel_requests"] = str(left_over)
    waited = sum(one.waited for one in admitted)
    if waited:
        headers[WAITED] = str(math.ceil(waited * 1000))
    if any(one.lease.apart for one in admitted):
        overrun = dict.fromkeys(limit.scope.limit for one in admitted for limit, _ in one.overrun)
        headers |= {WOULD_REFUSE: ", ".join(overrun)} if overrun else {}
    return headers


def refusal(
    refused: Refused,
    *,
    key_name: str,
    held_seconds: float | None,
    uniform: Callable[[], float] = random.random,
) -> Refusal:
    """Return what a refused client is told; `key_name` is what its key may be called in public."""
    limit = refused.limit
    wait = _retry_seconds(limit.capacity, held_seconds, refused.waiting, uniform)
    whole = max(1, math.ceil(wait))
    is_share = refused.reason == "store_unavailable"
    store = " in this worker (its share while the store is out or recovers)" if is_share else ""
    message = (
        f"Parallel request limit '{limit.scope.limit}' is full: {refused.in_flight} of {limit.capacity} "
        f"in flight{store}{_for(limit.scope, key_name)}{_line(refused)}. Retry after {whole} s."
    )
    headers = {
        "retry-after": str(whole),
        "retry-after-ms": str(math.ceil(wait * 1000)),
        "rate_limit_type": "max_parallel_requests",
        "x-parallel-limit-name": limit.scope.limit,
        "x-parallel-limit-reason": refused.reason,
    }
    if refused.waited:
        headers[WAITED] = str(math.ceil(refused.waited * 1000))
    if not limit.capacity:
        headers["x-should-retry"] = "false"
    may_wait = limit.may_be_waited_for and refused.reason == "limit"
    return Refusal(REFUSED_STATUS, message, headers, may_wait)


def _line(refused: Refused) -> str:
    """Return what there is to say of those that wait."""
    match refused.reason:
        case "queue_full":
            return f", and {refused.waiting} are waiting, as many as may"
        case "wait_timeout":
            return f", after {refused.waited:.1f} s of waiting"
    return ""


def unavailable(limit: str, message: str) -> Refusal:
    """Return what a client is told where `limit` denies requests that it cannot check."""
    headers = {
        "retry-after": "1",
        "x-parallel-limit-name": limit,
        "x-parallel-limit-reason": "store_unavailable",
    }
    return Refusal(503, message, headers)


def shown(text: str) -> str:
    """Return `text` fit for a message: one line, printable, not long."""
    if len(text) <= LONGEST_SHOWN and text.isprintable():
        return text
    cut = text if len(text) <= LONGEST_SHOWN else text[: LONGEST_SHOWN - 1] + "…"
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in cut)


def shown_scope(scope: Scope) -> dict[str, str]:
    """Return the identities of `scope` fit for reading, keys by the start of their hash."""
    return {
        dimension: identity[:SHORT_HASH] if dimension == "key" else shown(identity)
        for dimension, identity in scope.identities
    }


def _for(scope: Scope, key_name: str) -> str:
    identities = shown_scope(scope)
    key = f"(key {shown(key_name)})" if identities.pop("key", None) else ""
    others = ", ".join(f"{dimension}={identity}" for dimension, identity in identities.items())
    return "".join(f" {part}" for part in (f"for {others}" if others else "", key) if part)


def _retry_seconds(
    capacity: int, held_seconds: float | None, waiting: int, uniform: Callable[[], float]
) -> float:
    """Return how long until a slot is likely to be free for who comes after those that are `waiting`.

    One ends every `held / capacity` seconds.
    """
    if not capacity:
        return LONGEST_RETRY_SECONDS
    if held_seconds is None:
        return UNKNOWN_RETRY_SECONDS
    wait = held_seconds / capacity * (waiting + 1) * (1 + JITTER * uniform())
    return min(LONGEST_RETRY_SECONDS, max(SHORTEST_RETRY_SECONDS, wait))
