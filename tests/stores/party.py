"""A worker in a history, as the test knows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from litellm_parallel_limits.limits import Lease
from litellm_parallel_limits.stores.exchange import UNKNOWN, Exchange, Reply
from litellm_parallel_limits.stores.shared import SharedStore
from tests.stores.road import Road
from tests.stores.storages import TTL


@dataclass(eq=False)
class Worker:
    """A worker: its store and its way there, what it holds, since when that is renewed, and what it held.

    It `has_called` when it was answered once, it `is_lost` from when it is told of a loss until it has
    renewed, and it `is_cut` where no call succeeds.
    """

    name: str
    road: Road
    store: SharedStore
    held: dict[str, Lease] = field(default_factory=dict)
    renewed_at: dict[str, float] = field(default_factory=dict)
    given_back: list[Lease] = field(default_factory=list)
    is_lost: bool = False
    has_called: bool = False
    is_cut: bool = False

    @property
    def is_sending(self) -> bool:
        """Whether a call is under way, or another will follow at once."""
        sending = self.store._sending  # noqa: SLF001 (nothing else tells)
        return sending is not None and not sending.done()

    def hear(self, exchange: Exchange, reply: Reply) -> None:
        """Take note of a loss."""
        self.has_called = True
        if None in reply.answers or exchange.epoch not in {UNKNOWN, reply.epoch}:
            self.is_lost = True

    def has(self, leases: Sequence[Lease], now: float) -> None:
        """Take note of leases that were admitted or renewed."""
        self.held |= {lease.id: lease for lease in leases}
        self.renewed_at |= {lease.id: now for lease in leases}

    def gives_back(self, lease: Lease) -> None:
        """Release a lease."""
        self.held.pop(lease.id, None)
        self.given_back.append(lease)
        self.store.release(lease)

    def missing(self, kept: set[str], now: float) -> set[str]:
        """Return what it holds and has renewed lately, as a worker does, but is not among what is kept."""
        return {id_ for id_ in self.held if now - self.renewed_at.get(id_, -TTL) < TTL / 2} - kept
