"""Who is admitted, and for how long."""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import cast

from litellm_parallel_limits.background import start
from litellm_parallel_limits.deadlines import in_time
from litellm_parallel_limits.errors import LeasesLostError, StoreError, StoreUnavailableError
from litellm_parallel_limits.events import Denied, Observer, Released, StoreFailed, StoreRecovered
from litellm_parallel_limits.limits import Admitted, Answer, Lease, Limit, Patience, Refused, Waiting
from litellm_parallel_limits.shares import Shares, share_alone, share_beside
from litellm_parallel_limits.stores import Holding, Snapshot, Store
from litellm_parallel_limits.waiting import WaitingRoom, Wish

RENEWALS_PER_TTL = 3
"""A lease survives two renewals that fail: the usual choice of lease protocols (Chubby, etcd)."""

PROBE_SECONDS = 1.0
"""From one look at a store that is out to the next."""

STEADY_SECONDS = 10.0
"""Since an outage; one that comes sooner is the same trouble again, and is given twice the time to pass."""

CAUTION_SECONDS = 2 * PROBE_SECONDS
"""After an outage in which other workers may not have told the store yet what they admitted alone."""

HAND_BACK_SECONDS = 0.05
"""For which a client waits for the end of its answer at most, until others can have its slots: far longer
than a call of Redis takes, and too short to be noticed."""


@dataclass(frozen=True, slots=True)
class State:
    """How a worker is.

    The seconds that the store took to answer, for which it has been out, and since the last heartbeat, each
    None where there is none; and for how many requests slots are held, and how many wait.
    """

    store_seconds: float | None
    degraded_seconds: float | None
    heartbeat_seconds: float | None
    in_flight: int
    waiting: int


@dataclass(slots=True, eq=False)
class Permit:
    """The right to run, until released. Releasing it again does nothing."""

    admitted: Admitted
    _release: Callable[[Lease], None]
    _told: Callable[[], Awaitable[None]]
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

    async def handed_back(self) -> None:
        """Return once other workers can have what was released, or nearly so; never raises."""
        await self._told()


class Limiter:
    """Admits requests to their limits and renews their leases while they are held.

    `ttl` is how many seconds a lease lives unrenewed, `timeout` how many a request waits for the store at
    most. `observer` is told every event, and `clock` returns seconds that never go back.
    """

    def __init__(
        self,
        store: Store,
        *,
        ttl: float,
        timeout: float = 0.25,
        worker: str = "",
        observer: Observer = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store = store
        self._interval = ttl / RENEWALS_PER_TTL
        self._timeout = timeout
        self.worker = worker
        self._observer = observer
        self._clock = clock
        self._name = secrets.token_hex(5)
        self._numbers = count()
        self._held: dict[str, tuple[Lease, float]] = {}
        self._shares = Shares()
        self._heartbeat: asyncio.Task[None] | None = None
        self._beating: asyncio.Task[None] | None = None
        self._recovery: asyncio.Task[None] | None = None
        self._room = WaitingRoom(self._try, self._give_back, observer, clock)
        self._beaten_at = clock()
        self._recovered_at = -math.inf
        self._probe_seconds = PROBE_SECONDS
        self._degraded = False
        self._degraded_since = -math.inf

    @property
    def degraded(self) -> bool:
        """Whether the store is out: it failed, and has not been told since what is held."""
        return self._degraded

    @property
    def in_flight(self) -> int:
        """How many leases this worker holds."""
        return len(self._held)

    def slots(self) -> Mapping[str, int]:
        """Return how many slots it holds, by the name of the limit."""
        leases = (lease for lease, _ in self._held.values())
        return Counter(limit.scope.limit for lease in leases for limit in lease.limits)

    async def state(self) -> State:
        """Return how this worker is; the store is asked for that, unless it is known to be out."""
        began = self._clock()
        if not self._degraded:
            try:
                await in_time(self.store.told(), self._timeout)
            except (StoreError, TimeoutError):
                await self._beat_once()  # tells whether it is out
        now = self._clock()
        return State(
            store_seconds=None if self._degraded else now - began,
            degraded_seconds=now - self._degraded_since if self._degraded else None,
            heartbeat_seconds=now - self._beaten_at if self._held or self._room else None,
            in_flight=len(self._held),
            waiting=len(self._room),
        )

    async def admit(
        self, limits: Sequence[Limit], *, model: str = "", wish: Wish | None = None
    ) -> Permit | Refused:
        """Take one slot in each of `limits`, all or none.

        With a `wish` that is waited for, where the limits let it. Raises StoreUnavailableError where a limit
        wants its requests denied that cannot be checked, and GoneError if who waited has left.
        """
        answer: Answer
        try:
            if wish is None or not any(limit.may_be_waited_for for limit in limits):
                answer = cast("Answer", await self._try(limits, model, None))
            else:
                answer = await self._room.admit(limits, model, wish)
        except StoreUnavailableError as error:
            if denying := [limit for limit in limits if limit.scope.limit == error.limit]:
                self._observer(Denied(denying[0]))
            raise
        self._observer(answer)
        return self._permit(answer) if isinstance(answer, Admitted) else answer

    async def _try(self, limits: Sequence[Limit], model: str, patience: Patience | None) -> Answer | Waiting:
        answer = None if self._degraded else await self._ask_store(limits, model, patience)
        if answer is None:
            lease = self._new_lease(limits, model)
            answer = self._shares.decide(lease, share_alone, self.store.workers)
        if isinstance(answer, Waiting):
            self._keep_beating()
        return answer

    async def beat(self) -> None:
        """Renew every lease that is held. Only this ends an outage: the store knows what is held then."""
        self._beaten_at = self._clock()
        try:
            told = await self._renew_all()
            self._store_answered()
            # Decided alone while the first renewal was on its way: told before anyone new is asked for.
            if late := [lease for id_, (lease, _) in self._held.items() if id_ not in told]:
                await self.store.renew(late)
        except StoreError as error:
            self._store_failed("renew", error)

    def look_again(self) -> None:
        """Let those that wait look what they meet by now: the operator has changed the limits."""
        self._room.look_again()

    async def snapshot(self) -> Snapshot:
        """Return every slot in use, over all workers; while the store is out, those of this worker."""
        if not self._degraded:
            try:
                return await self.store.snapshot()
            except StoreError:
                await self._beat_once()  # tells whether it is out
        leases = (lease for lease, _ in self._held.values())
        own = tuple(Holding.of(lease, limit) for lease in leases for limit in lease.limits)
        return Snapshot(self.store.now_ms(), own, is_whole=False)

    async def _ask_store(
        self, limits: Sequence[Limit], model: str, patience: Patience | None
    ) -> Answer | Waiting | None:
        """Return the store's answer, None if it has none in time."""
        began = time.monotonic()
        try:
            if not (self._is_overdue() or self.store.lost):
                try:
                    return await self._acquire(self._new_lease(limits, model), patience)
                except LeasesLostError:
                    pass  # renewed with what is held
            renewing = self._renew_and_acquire(limits, model, patience)
            spent = time.monotonic() - began
            left = max(self._timeout / 4, self._timeout - spent)  # this event loop may have been held up
            return await in_time(renewing, left, undo=self._give_back)
        except StoreError as error:
            self._store_failed("acquire", error)
        except TimeoutError:
            self._go_on_alone()  # why, the heartbeat finds out
        return None

    def _give_back(self, answer: Answer | Waiting) -> None:
        if not isinstance(answer, Refused):
            self.store.release(answer.lease)

    def _is_overdue(self) -> bool:
        """Whether this process was held up for so long that its leases may have lapsed."""
        return bool(self._held) and self._clock() - self._beaten_at > 2 * self._interval

    async def _renew_and_acquire(
        self, limits: Sequence[Limit], model: str, patience: Patience | None
    ) -> Answer | Waiting:
        await self._beat_once()
        if self._is_overdue():  # that heartbeat began before this process was held up
            await self._beat_once()
        if self._degraded:
            raise StoreError("what is held could not be renewed")
        return await self._acquire(self._new_lease(limits, model), patience)

    async def _acquire(self, lease: Lease, patience: Patience | None) -> Answer | Waiting:
        """Ask the store, but only for this worker's share while leases of others may be missing there."""
        if self.store.settled and self._clock() - self._recovered_at >= CAUTION_SECONDS:
            return await (self.store.acquire(lease) if patience is None else self.store.wait(lease, patience))
        by_share = self._shares.decide(lease, share_beside, self.store.workers)
        if isinstance(by_share, Refused):
            return by_share
        with self._shares.counting(lease):
            return await self.store.acquire(lease)

    def _new_lease(self, limits: Sequence[Limit], model: str) -> Lease:
        return Lease(
            f"{self._name}{next(self._numbers):06x}", tuple(limits), self.worker, model, self.store.now_ms()
        )

    def _permit(self, admitted: Admitted) -> Permit:
        self._held[admitted.lease.id] = (admitted.lease, self._clock())
        self._shares.add(admitted.lease)
        self._keep_beating()
        return Permit(admitted, self._release, self._told)

    def _keep_beating(self) -> None:
        if self._heartbeat is None or self._heartbeat.done():
            self._beaten_at = self._clock()
            self._heartbeat = start(self._beat_while_held())

    def _release(self, lease: Lease) -> None:
        _, since = self._held.pop(lease.id)
        self._shares.remove(lease)
        self.store.release(lease)
        self._observer(Released(lease, self._clock() - since))
        self._room.stir()

    async def _told(self) -> None:
        if self.store.workers > 1 and not self._degraded:
            with suppress(StoreError, TimeoutError):
                await in_time(self.store.told(), HAND_BACK_SECONDS)

    async def _beat_while_held(self) -> None:
        while self._held or self._room:
            await asyncio.sleep(self._interval)
            if self._held or self._room:
                await self._beat_once()

    async def _beat_while_out(self) -> None:
        """Look whether the store is back: at once, or after a while where it does not stay."""
        if self._probe_seconds > PROBE_SECONDS:
            await asyncio.sleep(self._probe_seconds)
        while self._degraded:
            await self._beat_once()
            if self._degraded:
                await asyncio.sleep(self._probe_seconds)

    def _beat_once(self) -> Awaitable[None]:
        """Renew what is held, together with everybody who wants that now."""
        if self._beating is None or self._beating.done():
            self._beating = start(self.beat())
        return asyncio.shield(self._beating)

    async def _renew_all(self) -> set[str]:
        """Renew what is held, again if that was lost meanwhile, and return the names of what was told."""
        try:
            return await self._renew_now()
        except LeasesLostError:
            return await self._renew_now()

    async def _renew_now(self) -> set[str]:
        told = dict(self._held)
        await self.store.renew([lease for lease, _ in told.values()])
        return set(told)

    def _store_failed(self, operation: str, error: StoreError) -> None:
        self._go_on_alone()
        self._observer(StoreFailed(operation, error))

    def _go_on_alone(self) -> None:
        if not self._degraded:
            self._degraded = True
            self._degraded_since = self._clock()
            is_again = self._clock() - self._recovered_at < STEADY_SECONDS
            later = min(2 * self._probe_seconds, max(PROBE_SECONDS, self._interval))
            self._probe_seconds = later if is_again else PROBE_SECONDS
            self._room.lose(StoreError("the store is out"))
        if self._recovery is None or self._recovery.done():
            self._recovery = start(self._beat_while_out())

    def _store_answered(self) -> None:
        if self._degraded:
            self._degraded = False
            self._recovered_at = self._clock()
            self._observer(StoreRecovered())
            self._room.stir()
