"""One worker's side of a store that several workers share."""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from litellm_parallel_limits.background import start
from litellm_parallel_limits.deadlines import Deadline, here_in_time
from litellm_parallel_limits.errors import LeasesLostError, StoreError
from litellm_parallel_limits.limits import Admitted, Answer, Lease, Patience, Scope, Waiting
from litellm_parallel_limits.stores import Holding, Snapshot
from litellm_parallel_limits.stores.exchange import (
    UNKNOWN,
    Ask,
    Backend,
    Exchange,
    Reply,
    Stands,
    settling_seconds,
)
from litellm_parallel_limits.stores.turns import Turns

MOST_SLOTS = 32
"""Released, renewed and asked for in one call, of each so many: a bound on how long Redis is busy with it,
less than a millisecond where every one is in another scope (`python -m tests.benchmarks.growth`)."""

AGAIN_WEIGHT = 1 / 4
"""In slots, of one in a scope in which the same call has another one: what Redis does for a scope is done."""

WAITING_WEIGHT = 4
"""In slots, of one who comes to wait, or waits no longer: what Redis has to do for it besides."""

PAUSE_SECONDS = 0.02
"""Before a call that failed is tried again: a tenth of the default time-out, so that a connection that
was cut costs a request little, and a server that is gone is asked about ten times."""

RETRY_SECONDS = 1.0
"""Until a release that nobody confirmed is sent again, where no other call takes it along."""

_T = TypeVar("_T")


@dataclass(slots=True)
class _Admission:
    """A request for slots: `sent` once a call that asks for them was made, which may be carried out."""

    ask: Ask
    answer: asyncio.Future[Answer | Stands | StoreError]
    sent: bool = False


@dataclass(slots=True)
class _Batch:
    """What goes to the backend in one call, and who waits for it."""

    releases: dict[str, tuple[Ask, float]]
    renewals: dict[str, Lease]
    renewing: list[asyncio.Future[StoreError | None]] = field(default_factory=list)
    admissions: dict[str, _Admission] = field(default_factory=dict)


class SharedStore:
    """Keeps leases in a `backend`, each for `ttl` seconds unless renewed.

    One call is under way at a time. What arrives meanwhile gathers and goes together in the next one,
    releases first, then renewals, then admissions in order; what arrives alone goes at once. Of many
    releases or renewals a part goes in each call, and who is new goes beside renewals. No
    request for slots waits longer than `timeout` seconds, in which a call that fails is tried again.
    `workers` is how many this proxy runs at least.
    """

    def __init__(
        self, backend: Backend, *, worker: str, ttl: float, timeout: float = 0.25, workers: int = 1
    ) -> None:
        self.name = backend.name
        self._backend = backend
        self._worker = worker
        self._ttl = ttl
        self._timeout = timeout
        self._releases: OrderedDict[str, tuple[Ask, float]] = OrderedDict()
        self._renewals: OrderedDict[str, Lease] = OrderedDict()
        self._renewing: list[asyncio.Future[StoreError | None]] = []
        self._admissions: OrderedDict[str, _Admission] = OrderedDict()
        self._deadline = Deadline(timeout, self._too_late)
        self._turns = Turns(backend, worker, pause=PAUSE_SECONDS)
        self._alarm: asyncio.TimerHandle | None = None
        self._sending: asyncio.Task[None] | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._failing_since: float | None = None
        self._number = self._acknowledged = 0
        self._acknowledged_at = 0.0
        self._epoch = UNKNOWN
        self._settled_at = 0.0
        self._is_lost = False
        self._losses = 0
        self._ahead_ms = backend.now_ms() - int(time.monotonic() * 1000)
        self._workers = self._least_workers = workers

    @property
    def workers(self) -> int:
        """How many workers have called within the last time to live; after a loss, before it."""
        return self._workers

    @property
    def lost(self) -> bool:
        """Whether leases were lost and this worker has not renewed what it holds since; True at first."""
        return self._is_lost or self._epoch == UNKNOWN

    @property
    def settled(self) -> bool:
        """Whether every worker has had the time to renew what it holds since leases were last lost."""
        return time.monotonic() >= self._settled_at

    def now_ms(self) -> int:
        """Return the backend's time in milliseconds, reckoned from its last answer."""
        return int(time.monotonic() * 1000) + self._ahead_ms

    async def acquire(self, lease: Lease) -> Answer:
        """Take one slot in each of the lease's limits, or none where an enforced one is full."""
        answer = await self._asked(Ask(lease))
        assert not isinstance(answer, Stands)  # noqa: S101 (nobody waits without patience)
        return answer

    async def wait(self, lease: Lease, patience: Patience) -> Answer | Waiting:
        """Take the lease's slots, or let it wait for them if all that are full allow it."""
        if not self._turns.are_told():
            answer = await self.acquire(lease)
            if isinstance(answer, Admitted) or not await self._turns.will_be_told(self._timeout):
                return answer
        ask = Ask(lease, patience)
        turn = self._turns.expect(ask)
        try:
            outcome = await self._asked(ask)
        except BaseException:
            self._turns.forget(lease)
            raise
        if isinstance(outcome, Stands):
            return Waiting(lease, outcome.limit, outcome.in_flight, outcome.waiting, turn)
        self._turns.forget(lease)
        return outcome

    async def _asked(self, ask: Ask) -> Answer | Stands:
        if self._is_lost:
            raise LeasesLostError("what this worker holds has not been renewed since leases were lost")
        began = time.monotonic()
        answer: asyncio.Future[Answer | Stands | StoreError] = asyncio.get_running_loop().create_future()
        self._admissions[ask.lease.id] = _Admission(ask, answer)
        self._deadline.watch(answer)
        self._send()
        try:
            outcome = await answer
            if isinstance(outcome, StoreError):
                raise outcome
            if time.monotonic() - began > self._ttl / 3:  # held up: it may have lapsed, and others with it
                raise LeasesLostError("the answer came a heartbeat ago")
        except BaseException:
            self.release(ask.lease)  # it may have been granted, or be granted yet
            raise
        return outcome

    def _too_late(self, answer: asyncio.Future[Answer | Stands | StoreError]) -> None:
        answer.set_result(StoreError(f"no answer in {self._timeout:g} s"))

    def release(self, lease: Lease) -> None:
        """Free every slot of the lease, or let it wait no longer, with the next call."""
        self._renewals.pop(lease.id, None)
        asked = self._admissions.pop(lease.id, None)
        waited = self._turns.forget(lease)
        if asked is None or asked.sent:
            self._releases[lease.id] = (waited or Ask(lease), time.monotonic() + self._ttl)
            self._send()

    def told(self) -> Awaitable[None]:
        """Return what is done once the backend has been told everything until now, or raises StoreError."""
        told: asyncio.Future[StoreError | None] = asyncio.get_running_loop().create_future()
        self._renewing.append(told)
        self._send()
        return _success(told)

    async def renew(self, leases: Sequence[Lease]) -> None:
        """Let the leases live a full time to live from now, those that were lost as well."""
        losses = self._losses
        self._renewals.update((lease.id, lease) for lease in leases)
        await self.told()
        if self._losses != losses:
            raise LeasesLostError("leases were lost while they were renewed")
        self._is_lost = False

    async def snapshot(self) -> Snapshot:
        """Return every slot in use, over all workers."""
        await self.told()  # of what was released before
        found: list[Holding] = []
        pages = self._backend.holdings()
        while (page := await self._ask(anext(pages, None))) is not None:
            found += page
        scopes = list(dict.fromkeys(slot.scope for slot in found))
        waiting = zip(scopes, await self._ask(self._backend.waiting(scopes)), strict=True)
        return Snapshot(self.now_ms(), tuple(found), waiting=dict(waiting))

    async def free(self, *, scope: Scope | None = None, lease: str | None = None) -> int:
        """Free the slots in `scope`, of `lease`, or of `lease` in `scope`, and return how many there were."""
        if scope is None and lease is None:
            return 0
        held = (await self.snapshot()).holdings
        scopes = {slot.scope for slot in held if scope in {None, slot.scope} and lease in {None, slot.lease}}
        freed = await self._ask(self._backend.free(list(scopes), lease))
        await self.told()  # so that those that wait have their turns
        return freed

    async def note(self, place: str, amounts: Mapping[str, int], *, seconds: int, most: int) -> None:
        """Add `amounts` to what all workers have noted at a `place`."""
        await self._ask(self._backend.note(place, amounts, seconds=seconds, most=most))

    async def noted(self, places: Sequence[str]) -> Sequence[Mapping[str, int]]:
        """Return the sums of what was noted at each of `places`."""
        return await self._ask(self._backend.noted(places))

    def _send(self) -> None:
        if self._sending is None or self._sending.done():
            self._sending = start(self._send_all())

    async def _send_all(self) -> None:
        while self._releases or self._renewing or self._admissions:
            began = time.monotonic()
            batch = self._next_batch()
            try:
                reply = await self._ask(self._backend.exchange(self._exchange(batch)))
            except StoreError as error:
                self._failed(batch, error, began)
                if not (self._renewing or self._admissions):
                    self._send_later()
                    return
                await asyncio.sleep(PAUSE_SECONDS)
            except BaseException:
                self._give_up(batch, StoreError("the call was given up"))
                raise
            else:
                self._answered(batch, reply, began)

    def _send_later(self) -> None:
        self._failing_since = None  # nobody waits
        if self._retry is not None:
            self._retry.cancel()
        self._retry = asyncio.get_running_loop().call_later(RETRY_SECONDS, self._send)

    def _next_batch(self) -> _Batch:
        now = time.monotonic()
        releases = _take(self._releases, lambda release: release[0])
        renewals = _take(self._renewals, Ask)
        batch = _Batch({id_: release for id_, release in releases.items() if release[1] > now}, renewals)
        if not self._releases:  # who is new comes after what is free before
            batch.admissions = _take(self._admissions, lambda admission: admission.ask)
            if not self._renewals:
                batch.renewing, self._renewing = self._renewing, []
        for admission in batch.admissions.values():
            admission.sent = True
        return batch

    def _exchange(self, batch: _Batch) -> Exchange:
        self._number += 1
        lately = time.monotonic() - self._acknowledged_at < self._ttl / 2
        return Exchange(
            self._worker,
            self._number,
            self._acknowledged if lately or batch.renewals else 0,
            lately,
            self._epoch,
            [release for release, _ in batch.releases.values()],
            list(batch.renewals.values()),
            [admission.ask for admission in batch.admissions.values()],
        )

    def _answered(self, batch: _Batch, reply: Reply, began: float) -> None:
        self._failing_since = None
        if began - self._acknowledged_at > self._ttl:  # the others took us for dead
            error = LeasesLostError("nothing was heard of this worker for a time to live")
            self._turns.lose(error, spare=batch.admissions)
        self._acknowledged, self._acknowledged_at = self._number, began
        self._call_again(reply)
        now = time.monotonic()
        self._ahead_ms = reply.now_ms - int(now * 1000)
        age = (reply.now_ms - reply.epoch) / 1000 if reply.epoch > 0 else math.inf
        self._settled_at = now + settling_seconds(self._ttl) - age
        self._workers = max(self._least_workers if self.settled else self._workers, reply.workers)
        is_new = self._epoch not in {UNKNOWN, reply.epoch} or None in reply.answers
        self._epoch = reply.epoch
        for admission, answer in zip(batch.admissions.values(), reply.answers, strict=True):
            if answer is not None:
                _set(admission.answer, answer)
        _set_all(batch.renewing, None)
        if is_new:
            self._lost(batch)

    def _lost(self, batch: _Batch) -> None:
        """Let nobody be admitted until everything that is held was renewed."""
        self._is_lost = True
        self._losses += 1
        asked = [*batch.admissions.values(), *self._admissions.values()]
        self._admissions.clear()
        _set_all((admission.answer for admission in asked), LeasesLostError("leases were lost"))
        self._turns.lose(LeasesLostError("leases were lost"))

    def _call_again(self, reply: Reply) -> None:
        """Call when leases may have lapsed that others wait for, if none does so before."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        is_overdue = reply.alarm_ms <= reply.now_ms  # there was more to do than one call does
        if reply.alarm_ms and (self._turns or is_overdue):
            seconds = (reply.alarm_ms + 1 - reply.now_ms) / 1000
            self._alarm = asyncio.get_running_loop().call_later(max(0.0, seconds), self._call)

    def _call(self) -> None:
        self._renewing.append(asyncio.get_running_loop().create_future())
        self._send()

    def _failed(self, batch: _Batch, error: StoreError, began: float) -> None:
        """Try again, but for no longer than anyone waits."""
        if self._failing_since is None:
            self._failing_since = began
        if time.monotonic() + PAUSE_SECONDS - self._failing_since >= self._timeout:
            self._give_up(batch, error)
            return
        released = {**batch.releases, **self._releases}
        self._releases = OrderedDict(released)
        self._renewals = OrderedDict(_without(released, {**batch.renewals, **self._renewals}))
        self._admissions = OrderedDict(_without(released, {**batch.admissions, **self._admissions}))
        self._renewing = [*batch.renewing, *self._renewing]

    def _give_up(self, batch: _Batch, error: StoreError) -> None:
        """Tell everybody who waits; what was released is still to be told."""
        self._failing_since = None
        self._releases = OrderedDict({**batch.releases, **self._releases})
        asked = [*batch.admissions.values(), *self._admissions.values()]
        _set_all((admission.answer for admission in asked), error)
        _set_all([*batch.renewing, *self._renewing], error)
        self._renewing.clear()
        self._renewals.clear()

    async def _ask(self, call: Awaitable[_T]) -> _T:
        """Return what `call` gives within the time-out. Raises StoreError for every failure."""
        try:
            return await here_in_time(call, self._timeout)
        except TimeoutError as error:
            raise StoreError(str(error)) from error
        except Exception as error:  # of redis-py, SQLite, TLS, credentials: its text may be a secret
            raise StoreError(f"{self.name} failed: {type(error).__name__}") from error


def _take(waiting: OrderedDict[str, _T], ask: Callable[[_T], Ask]) -> dict[str, _T]:
    """Take the first of `waiting`, until together they weigh as much as a call may."""
    taken: dict[str, _T] = {}
    scopes: set[str] = set()
    weight = 0.0
    while waiting:
        first, value = waiting.popitem(last=False)
        weight += _weight(ask(value), scopes)
        if taken and weight > MOST_SLOTS:
            waiting[first] = value
            waiting.move_to_end(first, last=False)
            break
        taken[first] = value
    return taken


def _weight(ask: Ask, scopes: set[str]) -> float:
    """Return what there is to do for who asks, in slots, beside others in `scopes`; its own are added."""
    known = len(scopes)
    scopes.update([limit.scope.key for limit in ask.lease.limits])
    new = len(scopes) - known
    again = len(ask.lease.limits) - new
    return new + again * AGAIN_WEIGHT + (0 if ask.patience is None else WAITING_WEIGHT)


async def _success(told: asyncio.Future[StoreError | None]) -> None:
    if (error := await told) is not None:
        raise error


def _without(released: Mapping[str, object], asked: Mapping[str, _T]) -> dict[str, _T]:
    """Return what is still wanted of what was asked for: nobody holds, or waits for, what was released."""
    return {id_: value for id_, value in asked.items() if id_ not in released}


def _set(future: asyncio.Future[_T], outcome: _T) -> None:
    if not future.done():
        future.set_result(outcome)


def _set_all(futures: Iterable[asyncio.Future[_T]], outcome: _T) -> None:
    for future in futures:
        _set(future, outcome)
