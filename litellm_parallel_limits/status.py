"""What is in flight now, as it is told to who asks."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from litellm_parallel_limits.answers import shown, shown_scope
from litellm_parallel_limits.history import Refusals
from litellm_parallel_limits.limits import Scope
from litellm_parallel_limits.onlooker import EVERYBODY, Onlooker
from litellm_parallel_limits.stores import Holding, Snapshot

Sort = Literal["name", "utilization", "in_flight", "waiting", "refused"]
"""By what scopes are sorted: names from A on, numbers from the greatest on."""

MOST_A_PAGE = 1000

ID_DIGITS = 16
"""Hex digits by which a scope is named: its key would tell more of identities than is shown."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A request in flight: its lease, the model it asked for, its worker, and since how many seconds."""

    lease: str
    model: str
    worker: str
    age_seconds: float


@dataclass(frozen=True, slots=True)
class ScopeStatus:
    """A scope with something in flight, waiting or refused lately, and the limit there is of it.

    `id` names it where it is to be released. `limit` is the lowest number met within the last `lease_ttl`,
    null where none is known. `utilization` is the share of it that is in use, 1 where it is 0.
    """

    id: str
    name: str
    scope: Mapping[str, str]
    limit: int | None
    in_flight: int
    waiting: int
    utilization: float | None
    refused_lately: int
    holders: Sequence[Holder]


@dataclass(frozen=True, slots=True)
class Status:
    """What is in flight over all workers and proxies that share a store.

    `in_flight` counts leases, each once, however many limits it is counted in: a request has one, and one
    more in a deployment that has a limit. `refused_lately` is of the last minute. While the store is out
    (`degraded`) all numbers are of the worker that answers. `total` scopes stand on `total_pages` pages.
    """

    in_flight: int
    waiting: int
    refused_lately: int
    store: str
    degraded: bool
    total: int
    page: int
    page_size: int
    total_pages: int
    scopes: Sequence[ScopeStatus]


@dataclass(frozen=True, slots=True)
class View:
    """Who looks, and at what: one page of the scopes, in an order, of one limit only if one is named."""

    onlooker: Onlooker = EVERYBODY
    page: int = 1
    page_size: int = 100
    sort: Sort = "name"
    limit: str | None = None

    def shows(self, scope: Scope) -> bool:
        """Whether the scope is to be seen."""
        return self.limit in {None, scope.limit} and self.onlooker.may_see(scope)


@dataclass(frozen=True, slots=True)
class Found:
    """What there is to say of a scope, to who may see it."""

    scope: Scope
    capacity: int | None
    holdings: Sequence[Holding]
    waiting: int
    refused: int

    @property
    def utilization(self) -> float | None:
        """The share of the limit that is in use."""
        if self.capacity is None:
            return None
        return round(len(self.holdings) / self.capacity, 3) if self.capacity else 1.0


_ORDERS: Mapping[Sort, Callable[[Found], float]] = {
    "name": lambda _: 0,
    "utilization": lambda found: found.utilization or 0,
    "in_flight": lambda found: len(found.holdings),
    "waiting": lambda found: found.waiting,
    "refused": lambda found: found.refused,
}


@dataclass(frozen=True, slots=True)
class Look:
    """What was in flight at `now_ms`, by the store's clock; of one worker only where it `is_whole` not."""

    now_ms: int
    is_whole: bool
    found: Sequence[Found]


def look(snapshot: Snapshot, refused: Mapping[Scope, Refusals], *, ttl: float) -> Look:
    """Return what there is to say of a snapshot, and of what was `refused` lately."""
    return Look(snapshot.now_ms, snapshot.is_whole, list(_found(snapshot, refused, ttl)))


def status(look: Look, view: View, *, store: str) -> Status:
    """Return what a `view` shows of what is in flight."""
    order = _ORDERS[view.sort]
    found = [one for one in look.found if view.shows(one.scope)]
    found.sort(key=lambda one: (-order(one), one.scope.key))
    first = (view.page - 1) * view.page_size
    return Status(
        in_flight=len({holding.lease for one in found for holding in one.holdings}),
        waiting=sum(one.waiting for one in found),
        refused_lately=sum(one.refused for one in found),
        store=store,
        degraded=not look.is_whole,
        total=len(found),
        page=view.page,
        page_size=view.page_size,
        total_pages=math.ceil(len(found) / view.page_size),
        scopes=[_shown(one, view.onlooker, look.now_ms) for one in found[first : first + view.page_size]],
    )


def scope_id(scope: Scope) -> str:
    """Return what names the scope in the status."""
    return hashlib.sha256(scope.key.encode()).hexdigest()[:ID_DIGITS]


def _found(snapshot: Snapshot, refused: Mapping[Scope, Refusals], ttl: float) -> Iterator[Found]:
    scopes: dict[Scope, list[Holding]] = {scope: [] for scope in refused}
    for holding in snapshot.holdings:
        scopes.setdefault(holding.scope, []).append(holding)
    for scope, holdings in scopes.items():
        refusals = refused.get(scope, Refusals(0, None))
        capacity = _capacity(holdings, snapshot.now_ms - ttl * 1000) if holdings else refusals.capacity
        yield Found(scope, capacity, holdings, snapshot.waiting.get(scope, 0), refusals.number)


def _shown(found: Found, onlooker: Onlooker, now_ms: int) -> ScopeStatus:
    oldest_first = sorted(found.holdings, key=lambda held: held.started_ms)
    return ScopeStatus(
        id=scope_id(found.scope),
        name=found.scope.limit,
        scope=shown_scope(found.scope),
        limit=found.capacity,
        in_flight=len(found.holdings),
        waiting=found.waiting,
        utilization=found.utilization,
        refused_lately=found.refused,
        holders=[_holder(one, now_ms) for one in oldest_first if onlooker.may_see_holders(found.scope)],
    )


def _capacity(holdings: Sequence[Holding], since_ms: float) -> int:
    """Return the lowest number that holders admitted since `since_ms` met, else that of the newest."""
    recent = [holding.capacity for holding in holdings if holding.started_ms >= since_ms]
    return min(recent) if recent else max(holdings, key=lambda held: held.started_ms).capacity


def _holder(holding: Holding, now_ms: int) -> Holder:
    age = max(0, now_ms - holding.started_ms) / 1000
    return Holder(holding.lease, shown(holding.model), holding.worker, round(age, 1))
