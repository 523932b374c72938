"""What happens in a limiter, told by value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from litellm_parallel_limits.errors import StoreError
from litellm_parallel_limits.limits import Admitted, Lease, Limit, Refused

WaitOutcome = Literal["admitted", "refused", "left"]


@dataclass(frozen=True, slots=True)
class Released:
    """A lease ended after `held_seconds`."""

    lease: Lease
    held_seconds: float


@dataclass(frozen=True, slots=True)
class StoreFailed:
    """The store could not answer an `operation`: `acquire` or `renew`."""

    operation: str
    error: StoreError


@dataclass(frozen=True, slots=True)
class Denied:
    """A request was answered 503: the store is out, and `limit` wants its requests denied then."""

    limit: Limit


@dataclass(frozen=True, slots=True)
class StoreAnswered:
    """The store answered an `operation` after `seconds`."""

    operation: str
    seconds: float


@dataclass(frozen=True, slots=True)
class StoreRecovered:
    """The store answers again."""


@dataclass(frozen=True, slots=True)
class InvalidLimit:
    """A record gives no number where `source` should: the limit and the field it was looked for in."""

    source: str


@dataclass(frozen=True, slots=True)
class LookUpFailed:
    """A record of LiteLLM's could not be read, or not in time; what was last known of it holds."""

    error: Exception


@dataclass(frozen=True, slots=True)
class WaitBegan:
    """A request begins to wait for `limit`."""

    limit: Limit


@dataclass(frozen=True, slots=True)
class WaitEnded:
    """A request has waited `seconds` for `limit`, and now is admitted, refused, or gone."""

    limit: Limit
    seconds: float
    outcome: WaitOutcome


Event = (
    Admitted
    | Refused
    | Released
    | WaitBegan
    | WaitEnded
    | Denied
    | StoreAnswered
    | StoreFailed
    | StoreRecovered
    | InvalidLimit
    | LookUpFailed
)
Observer = Callable[[Event], None]
