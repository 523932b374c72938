"""What every store of leases does, in so few words that one can see that it is right."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from litellm_parallel_limits.limits import Admitted, Answer, Lease, Limit, Refused, Scope
from litellm_parallel_limits.stores import Holding
from litellm_parallel_limits.stores.exchange import Exchange, settling_seconds
from tests.stores.storages import TTL


class LateError(Exception):
    """A call came after a later one of its worker."""


@dataclass(frozen=True)
class Epoch:
    """A time in which no leases were lost: the first that anyone knew of, or one that began with a loss."""

    number: int
    begun: float
    is_first: bool


@dataclass(frozen=True)
class Told:
    """What a worker is told: how many live, which epoch it is, who is admitted; nobody where it is None."""

    workers: int
    epoch: Epoch
    answers: list[Answer | None]


@dataclass
class _Slot:
    lease: Lease
    limit: Limit
    deadline: float
    is_freed: bool = False


@dataclass
class Slots:
    """Slots in use, each until its deadline."""

    now: float = 0.0
    _slots: dict[tuple[Scope, str], _Slot] = field(default_factory=dict)

    def acquire(self, lease: Lease) -> Answer:
        """Take one slot in each of the lease's limits, or none where an enforced one is full."""
        self.release(lease)
        counts = tuple(self.count(limit.scope) for limit in lease.limits)
        full = [
            (limit, count)
            for limit, count in zip(lease.limits, counts, strict=True)
            if count >= limit.capacity
        ]
        for limit, count in full:
            if not limit.observed:
                return Refused(limit, count)
        granted = replace(lease, apart=bool(full))
        self.renew(granted)
        return Admitted(granted, tuple(count + 1 for count in counts))

    def renew(self, lease: Lease) -> None:
        """Let a lease live on; what was freed stays free."""
        for limit in lease.limits:
            slot = self._slots.setdefault((limit.scope, lease.id), _Slot(lease, limit, 0))
            slot.deadline = self.now + TTL

    def release(self, lease: Lease) -> None:
        """Free every slot of a lease."""
        for limit in lease.limits:
            self._slots.pop((limit.scope, lease.id), None)

    def free(self, scopes: Iterable[Scope], lease: str | None) -> int:
        """Free the slots in some scopes, of one lease only if it is named, for a time to live or longer."""
        meant = [
            slot
            for (scope, id_), slot in self._slots.items()
            if scope in scopes and lease in {None, id_} and not slot.is_freed
        ]
        for slot in meant:
            slot.is_freed, slot.deadline = True, self.now + TTL
        return len(meant)

    def age(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
        self._slots = {key: slot for key, slot in self._slots.items() if slot.deadline >= self.now}

    def holdings(self) -> list[Holding]:
        """Return every slot in use."""
        return [Holding.of(slot.lease, slot.limit) for slot in self._slots.values() if not slot.is_freed]

    def leases(self) -> set[str]:
        """Return the name of every lease that is kept, whether an admin has freed its slots or not."""
        return {id_ for _, id_ in self._slots}

    def count(self, scope: Scope) -> int:
        """Return how many leases are compared with a limit of `scope`."""
        return sum(
            slot.limit.scope == scope and not slot.is_freed and not slot.lease.is_apart(slot.limit)
            for slot in self._slots.values()
        )


@dataclass
class Reference:
    """Slots that several workers share, and what it knows of them. They are `lost` with all the rest."""

    slots: Slots = field(default_factory=Slots)
    epoch: Epoch | None = None
    epochs: int = 0
    _calls: dict[str, tuple[int, float]] = field(default_factory=dict)

    def exchange(self, exchange: Exchange, known: Epoch | None) -> Told:
        """Do what a worker, who knows of an epoch, asks for. Raises LateError if it is late."""
        last, _ = self._calls.get(exchange.worker, (0, 0))
        if exchange.number < last:
            raise LateError
        self._calls[exchange.worker] = exchange.number, self.slots.now + TTL
        is_behind = last < exchange.acknowledged and (last > 0 or exchange.lately or len(self._calls) == 1)
        epoch = self._epoch(known, is_behind=is_behind)
        for ask in exchange.releases:
            self.slots.release(ask.lease)
        if known in {None, epoch}:
            for lease in exchange.renewals:
                self.slots.renew(lease)
        is_settled = epoch.is_first or self.slots.now - epoch.begun >= settling_seconds(TTL)
        admits = known == epoch or (known is None and is_settled)
        answers = [self.slots.acquire(ask.lease) if admits else None for ask in exchange.asks]
        return Told(len(self._calls), epoch, answers)

    def age(self, seconds: float) -> None:
        """Let time pass."""
        self.slots.age(seconds)
        self._calls = {name: call for name, call in self._calls.items() if call[1] >= self.slots.now}

    def lost(self) -> Reference:
        """Return what is left when everything is forgotten."""
        return Reference(Slots(self.slots.now), epochs=self.epochs)

    def resumed(self, other: Reference) -> Reference:
        """Return this state, as it goes on after another."""
        self.age(other.slots.now - self.slots.now)
        self.epochs = other.epochs
        return self

    def _epoch(self, known: Epoch | None, *, is_behind: bool) -> Epoch:
        """Return the epoch, which is another than before where leases were lost."""
        if self.epoch is None or self._is_over(self.epoch, known, is_behind=is_behind):
            self.epochs += 1
            self.epoch = Epoch(self.epochs, self.slots.now, is_first=known is None)
        return self.epoch

    def _is_over(self, epoch: Epoch, known: Epoch | None, *, is_behind: bool) -> bool:
        if known is None or known == epoch:
            return is_behind and known is not None
        return epoch.is_first or known.number > epoch.number
