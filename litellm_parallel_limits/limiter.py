"""Who is admitted, and for how long."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from litellm_parallel_limits.errors import StoreError, StoreUnavailableError
from litellm_parallel_limits.events import Observer, Released, StoreFailed, StoreRecovered
from litellm_parallel_limits.limits import MOST_PARALLEL_REQUESTS, Admitted, Lease, Limit, Refused, Scope
from litellm_parallel_limits.stores import Holding, Snapshot, Store

RENEWALS_PER_TTL = 3
"""A lease survives two renewals that fail: the usual choice of lease protocols (Chubby, etcd)."""


@dataclass(slots=True, eq=False)
class Permit:
    """The right to run, until released. Releasing it again does nothing."""

    admitted: Admitted
    _release: Callable[[Lease], None]
    _released: bool = field(default=False, init=False)

    @property
    def lease(self) -> Lease:
        """What is held."""
        return self.admitted.lease

    def release(self) -> None:
        """Give every slot back. Returns at once; never raises."""
        if not self._released:
            self._released = True
            self._release(self.lease)


class Limiter:
    """Admits requests to their limits and renews their leases while they are held.

    `ttl` is how many seconds a lease lives unrenewed, `observer` is told every event, and `clock`
    returns seconds that never go back.
    """

    def __init__(
        self,
        store: Store,
        *,
        ttl: float,
        worker: str = "",
        observer: Observer = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store = store
        self._interval = ttl / RENEWALS_PER_TTL
        self._worker = worker
        self._observer = observer
        self._clock = clock
        self._held: dict[str, tuple[Lease, float]] = {}
        self._counts: Counter[Scope] = Counter()  # of held leases, without those that are apart
        self._heartbeat: asyncio.Task[None] | None = None
        self._beaten_at = clock()
        self._degraded = False
        self._probing = False

    @property
    def degraded(self) -> bool:
        """Whether the store could not answer when it was last asked."""
        return self._degraded

    async def admit(self, limits: Sequence[Limit], *, model: str = "") -> Permit | Refused:
        """Take one slot in each of `limits`, all or none.

        Raises StoreUnavailableError where a limit wants its requests denied while the store is out.
        """
        answer = await self._ask_store(limits, model) if await self._is_store_usable() else None
        if answer is None:
            answer = self._decide_alone(self._new_lease(limits, model))
        self._observer(answer)
        return self._permit(answer) if isinstance(answer, Admitted) else answer

    async def beat(self) -> None:
        """Renew every lease that is held. Only this ends an outage: the store knows what is held then."""
        self._beaten_at = self._clock()
        told = dict(self._held)
        try:
            await self.store.renew([lease for lease, _ in told.values()])
            self._store_answered()
            late = [lease for id_, (lease, _) in self._held.items() if id_ not in told]
            if (
                late
            ):  # decided alone while the first renewal was on its way: told before anyone new is asked for
                await self.store.renew(late)
        except StoreError as error:
            self._store_failed("renew", error)

    async def snapshot(self) -> Snapshot:
        """Return every slot in use, over all workers; while the store is out, those of this worker."""
        try:
            return await self.store.snapshot()
        except StoreError as error:
            self._observer(StoreFailed("snapshot", error))
            leases = (lease for lease, _ in self._held.values())
            own = tuple(Holding.of(lease, limit) for lease in leases for limit in lease.limits)
            return Snapshot(self.store.now_ms(), own)

    def _store_failed(self, operation: str, error: StoreError) -> None:
        self._degraded = True
        self._observer(StoreFailed(operation, error))

    def _store_answered(self) -> None:
        if self._degraded:
            self._degraded = False
            self._observer(StoreRecovered())

    def _new_lease(self, limits: Sequence[Limit], model: str) -> Lease:
        return Lease(secrets.token_hex(8), tuple(limits), self._worker, model, self.store.now_ms())

    def _permit(self, admitted: Admitted) -> Permit:
        self._held[admitted.lease.id] = (admitted.lease, self._clock())
        self._counts.update(_counted(admitted.lease))
        if self._heartbeat is None or self._heartbeat.done():
            self._beaten_at = self._clock()
            self._heartbeat = asyncio.get_running_loop().create_task(self._beat_while_held())
        return Permit(admitted, self._release)

    def _release(self, lease: Lease) -> None:
        _, since = self._held.pop(lease.id)
        for scope in _counted(lease):
            self._counts[scope] -= 1
            if not self._counts[scope]:
                del self._counts[scope]
        self.store.release(lease)
        self._observer(Released(lease, self._clock() - since))

    async def _beat_while_held(self) -> None:
        while self._held:
            await asyncio.sleep(self._interval)
            if self._held:
                await self.beat()

    async def _is_store_usable(self) -> bool:
        """Tell the store first what is held, where it was out or this process was held up.

        While it is out one request at a time tries it; the others do not wait.
        """
        overdue = self._held and self._clock() - self._beaten_at > 2 * self._interval
        if self._probing and self._degraded:
            return False
        if self._degraded or overdue:
            self._probing = True
            try:
                await self.beat()
            finally:
                self._probing = False
        return not self._degraded

    async def _ask_store(self, limits: Sequence[Limit], model: str) -> Admitted | Refused | None:
        """Return the store's answer, None if it has none."""
        try:
            return await self.store.acquire(self._new_lease(limits, model))
        except StoreError as error:
            self._store_failed("acquire", error)
            return None

    def _decide_alone(self, lease: Lease) -> Admitted | Refused:
        """Admit or refuse without the store, as each limit says."""
        counts = tuple(self._counts[limit.scope] for limit in lease.limits)
        full = [
            (limit, count, share)
            for limit, count in zip(lease.limits, counts, strict=True)
            if count >= (share := self._share(limit))
        ]
        for limit, count, share in full:
            if limit.observed:
                continue
            if limit.on_store_failure == "deny":
                raise StoreUnavailableError(limit.scope.limit)
            return Refused(replace(limit, capacity=share), count, "store_unavailable")
        return Admitted(replace(lease, apart=bool(full)), tuple(count + 1 for count in counts))

    def _share(self, limit: Limit) -> int:
        """Return how many this worker may hold of `limit` without asking the store."""
        if limit.on_store_failure == "deny":
            return 0
        if limit.on_store_failure == "allow" and limit.capacity:
            return MOST_PARALLEL_REQUESTS
        return min(limit.capacity, max(1, limit.capacity // self.store.workers))


def _counted(lease: Lease) -> list[Scope]:
    """Return the scopes in which the lease is compared with the limit."""
    return [limit.scope for limit in lease.limits if not lease.is_apart(limit)]
