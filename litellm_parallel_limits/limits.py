"""What a scope, a limit and a lease are."""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import quote, unquote

Mode = Literal["enforce", "observe"]
OnStoreFailure = Literal["share", "allow", "deny"]

MOST_PARALLEL_REQUESTS = 2**53 - 1
"""Greater numbers count as this one: the largest that Redis' Lua compares exactly."""

LONGEST_NUMBER = len(str(MOST_PARALLEL_REQUESTS)) + 1
"""Digits of a number given as text that are looked at: with so many it is too great in any case."""

LONGEST_IDENTITY = 200
"""Characters, quoted; a longer identity stands in a key as its hash. Ours: it keeps Redis keys short."""


LONGEST_WAIT_SECONDS = 3600.0
"""That a request may be told to wait. Ours: no client and no load balancer waits longer for an answer."""


@dataclass(frozen=True, slots=True)
class Scope:
    """The name of a limit and the identities it counts by, as `(dimension, identity)` pairs.

    Its `key` is a text that no other scope has, of characters that are safe in a Redis key. Scopes are
    the same if their keys are.
    """

    limit: str = field(compare=False)
    identities: tuple[tuple[str, str], ...] = field(default=(), compare=False)
    key: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        parts = (f"{dimension}={_quoted(identity)}" for dimension, identity in self.identities)
        object.__setattr__(self, "key", ";".join((self.limit, *parts)))

    @property
    def is_tried(self) -> bool:
        """Whether a request takes slots in several of its kind to use one: they count no requests."""
        return any(dimension == "deployment" for dimension, _ in self.identities)

    @classmethod
    def parse(cls, key: str) -> Scope:
        """Return the scope of a `key`; an identity that was too long comes back as `*` and its hash."""
        limit, *pairs = key.split(";")
        split = (pair.partition("=") for pair in pairs)
        scope = cls(
            limit,
            tuple((dimension, unquote(identity, errors="surrogatepass")) for dimension, _, identity in split),
        )
        object.__setattr__(scope, "key", key)  # of a hash there is no way back to the identity
        return scope


def _quoted(identity: str) -> str:
    # surrogatepass: JSON can carry half a character, which no other handler would quote one-to-one.
    quoted = quote(identity, safe="", errors="surrogatepass")
    if len(quoted) <= LONGEST_IDENTITY:
        return quoted
    return "*" + hashlib.sha256(quoted.encode()).hexdigest()  # quote() leaves no asterisk: no forgery


@dataclass(frozen=True, slots=True)
class Wait:
    """How requests wait for a slot: each `seconds` at most, and no more than `most` of them in a scope.

    Those of one `flow` take turns with the others as one.
    """

    seconds: float
    most: int
    flow: str = ""


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `capacity` requests in flight within `scope`.

    With mode `observe` a request over it is counted apart and not refused. `on_store_failure` says
    what holds while the store cannot answer: this worker's share, everything, or nothing. Without `wait`
    a request that finds it full is refused at once.
    """

    scope: Scope
    capacity: int
    mode: Mode = "enforce"
    on_store_failure: OnStoreFailure = "share"
    wait: Wait | None = None

    @property
    def observed(self) -> bool:
        """Whether this limit only counts."""
        return self.mode == "observe"

    @property
    def may_be_waited_for(self) -> bool:
        """Whether a slot may come free for who waits: in a limit of 0 none ever does."""
        return self.wait is not None and self.capacity > 0


@dataclass(frozen=True, slots=True)
class Patience:
    """How a request waits where its limits let it.

    Lower `priority` goes first. It has `waited` so many seconds already, and waits `seconds` more at most,
    whatever its limits allow.
    """

    priority: int = 0
    waited: float = 0.0
    seconds: float = math.inf


@dataclass(frozen=True, slots=True)
class Lease:
    """What an admitted request holds: one slot in each of its limits, until released or lapsed.

    `id` is ours, and no two have the same: a client can choose LiteLLM's call id. `started_ms` is by the
    store's clock. `apart` marks a lease that an observed limit would have refused: its slots in observed
    limits are counted apart.
    """

    id: str
    limits: tuple[Limit, ...]
    worker: str = ""
    model: str = ""
    started_ms: int = 0
    apart: bool = False

    def is_apart(self, limit: Limit) -> bool:
        """Whether the slot in `limit` is one that enforcement would not have given."""
        return self.apart and limit.observed


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request has its slots: `in_flight` counts, for each limit of `lease`, the leases with it.

    It has `waited` so many seconds for them.
    """

    lease: Lease
    in_flight: tuple[int, ...]
    waited: float = 0.0

    def counts(self) -> Iterable[tuple[Limit, int]]:
        """Yield each limit with the leases that count in it."""
        return zip(self.lease.limits, self.in_flight, strict=True)

    @property
    def took_last(self) -> bool:
        """Whether no slot was left over in one of the limits."""
        for limit, count in zip(self.lease.limits, self.in_flight, strict=True):
            if count >= limit.capacity and not limit.observed:
                return True
        return False

    @property
    def overrun(self) -> tuple[tuple[Limit, int], ...]:
        """The observed limits that would have refused, each with the leases that count in it."""
        if not self.lease.apart:
            return ()
        return tuple(
            (limit, count) for limit, count in self.counts() if limit.observed and count > limit.capacity
        )


RefusalReason = Literal["limit", "queue_full", "wait_timeout", "store_unavailable"]


@dataclass(frozen=True, slots=True)
class Refused:
    """A request got nothing, because `limit` was full with `in_flight` leases, and `waiting` for more.

    It has `waited` so many seconds itself.
    """

    limit: Limit
    in_flight: int
    reason: RefusalReason = "limit"
    waiting: int = 0
    waited: float = 0.0


Answer = Admitted | Refused


@dataclass(frozen=True, slots=True)
class Waiting:
    """The lease waits, with nothing held, for `limit`: full with `in_flight` leases, `waiting` before it.

    `turn` is what it is given when its turn has come. It raises StoreError where its place was lost.
    """

    lease: Lease
    limit: Limit
    in_flight: int
    waiting: int
    turn: asyncio.Future[Admitted] = field(compare=False)


def whole_number(value: object) -> int | None:
    """Return the number of requests that `value` stands for, None if it sets no limit.

    Whole numbers from 0 on, also as text, are numbers; anything else raises ValueError.
    """
    if value is None:
        return None
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdecimal():
        digits = value.strip().lstrip("0")[:LONGEST_NUMBER]  # int() refuses thousands of digits
        value = int(digits or "0")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError("not a whole number from 0 on")
    return min(value, MOST_PARALLEL_REQUESTS)
