"""Random histories of several workers and their storage, held against the reference at every step."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any
from unittest import mock

from litellm_parallel_limits.errors import LeasesLostError, StoreError
from litellm_parallel_limits.limits import Admitted, Answer, Lease, Limit, Scope
from litellm_parallel_limits.stores import Holding, shared
from litellm_parallel_limits.stores.exchange import UNKNOWN, Backend, Exchange, Reply
from tests.stores.asking import turns
from tests.stores.party import Worker
from tests.stores.reference import Epoch, LateError, Reference, Told
from tests.stores.road import Road, arrived, call_lost, call_silent, reply_lost, reply_silent
from tests.stores.storages import MOMENT, PATIENCE, TTL, Ground, Perils, shared_store

STEP = TTL / 3 + 1
"""Seconds: three are more than a time to live, two so much less that the test's own time does not count,
and one is less than the half in which a store settles."""

SCOPES = tuple(Scope(name, (("team", "research"),)) for name in ("a", "b", "c"))
WORKERS = 3
Way = tuple[Callable[[], Awaitable[None]], int]
"""What can come next, and how often it does."""

NEVER = 3_600.0
PUNCTUAL = 0.6
"""Of the times that a worker should renew what it holds, so many it does."""

IDLE_TURNS = 8
"""Of the event loop: more than there are before a call begins, also one that is made again."""


class WrongError(AssertionError):
    """A storage and the reference differ; the message tells the history."""


class Watched:
    """A backend of which every answer is compared with the reference's."""

    def __init__(self, backend: Backend, history: History) -> None:
        self.name = backend.name
        self.now_ms = backend.now_ms
        self.holdings = backend.holdings
        self.grants = backend.grants
        self.waiting = backend.waiting
        self.note = backend.note
        self.noted = backend.noted
        self._backend = backend
        self._history = history

    async def exchange(self, exchange: Exchange) -> Reply:
        """Carry out a call, and no other meanwhile."""
        self._history.under_way += 1
        try:
            async with self._history.lock:
                return await self._exchange(exchange)
        finally:
            self._history.under_way -= 1

    async def _exchange(self, exchange: Exchange) -> Reply:
        told = self._history.told(exchange)
        try:
            reply = await self._backend.exchange(exchange)
        except Exception as error:
            self._history.expect(told is None, f"{error!r} instead of {told}")
            raise
        if self._history.is_told_anew(exchange, reply, told):
            await asyncio.sleep(MOMENT)  # two epochs that begin in one millisecond are one
        return reply

    async def free(self, scopes: Sequence[Scope], lease: str | None) -> int:
        """Free slots."""
        freed = await self._backend.free(scopes, lease)
        expected = self._history.reference.slots.free(scopes, lease)
        self._history.expect(freed == expected, f"{freed} slots were freed, not {expected}")
        return freed


class History:
    """A history of workers on a `ground` that a seed determines.

    Its `perils` are met; where there are none, there is one worker whom the ground never forgets.
    """

    def __init__(self, ground: Ground, seed: int, *, perils: Perils | None = None) -> None:
        self.reference = Reference()
        self.under_way = 0
        self.lock = asyncio.Lock()
        self._ground = ground
        self._perils = perils
        self._seed = seed
        self._chance = random.Random(seed)
        self._backend = Watched(ground.backend(), self)
        self._epochs: dict[int, Epoch] = {}
        self._answers: dict[str, Answer | None] = {}
        self._workers: list[Worker] = []
        self._died: dict[str, float] = {}
        self._late: list[Exchange] = []
        self._ghosts: set[str] = set()
        self._saved: tuple[Any, Reference] | None = None
        self._names = self._leases = 0
        self._log: list[str] = []
        self._wrong: list[str] = []
        for _ in range(WORKERS if perils else 1):
            self._start()

    async def run(self, steps: int) -> None:
        """Go so many steps. Raises WrongError with the whole history at the first that is wrong."""
        with mock.patch.multiple(shared, PAUSE_SECONDS=0, RETRY_SECONDS=0):
            try:
                for _ in range(steps):
                    await self._go()
                await self._end()
            finally:
                await _cancel_all()

    def told(self, exchange: Exchange) -> Told | None:
        """Return what the reference tells a worker, None if its call is late."""
        known = None if exchange.epoch == UNKNOWN else self._epochs[exchange.epoch]
        if self._perils is None:
            exchange = replace(exchange, acknowledged=0)
        try:
            return self.reference.exchange(exchange, known)
        except LateError:
            return None

    def is_told_anew(self, exchange: Exchange, reply: Reply, told: Told | None) -> bool:
        """Whether an epoch begins. Takes note where a worker was not told what the reference tells."""
        if told is None:
            self.expect(False, "a late call was carried out")  # noqa: FBT003
            return False
        is_new = reply.epoch not in self._epochs
        self.expect(list(reply.answers) == told.answers, f"{reply.answers} instead of {told.answers}")
        self.expect(reply.workers == told.workers, f"{reply.workers} workers, not {told.workers}")
        epoch = self._epochs.setdefault(reply.epoch, told.epoch)
        self.expect(epoch == told.epoch, f"{epoch} goes on instead of {told.epoch}")
        self.expect((reply.epoch < 0) == told.epoch.is_first, f"epoch {reply.epoch} is {told.epoch}")
        self._answers |= dict(zip((ask.lease.id for ask in exchange.asks), told.answers, strict=True))
        return is_new

    def expect(self, is_so: bool, what_else: str) -> None:  # noqa: FBT001
        """Take note of what is so instead."""
        if not is_so:
            self._wrong.append(what_else)

    def _heard(self, worker: Worker, exchange: Exchange, reply: Reply) -> None:
        """Expect nobody to be admitted to a worker of whose leases some are missing."""
        worker.hear(exchange, reply)
        if any(isinstance(answer, Admitted) for answer in reply.answers):
            missing = worker.missing(self.reference.slots.leases(), self.reference.slots.now)
            self.expect(not missing, f"{worker.name} has room though {missing} were lost")

    async def _go(self) -> None:
        ways, weights = zip(*self._ways(), strict=True)
        await self._chance.choices(ways, weights)[0]()
        await self._compare()

    def _ways(self) -> list[Way]:
        """Return what can come next, and how often it does."""
        ways: list[Way] = [
            (self._ask, 30),
            (self._give_back, 20),
            (self._renew, 20),
            (self._age, 8),
            (self._free, 5),
            (self._stall, 3),
        ]
        if self._perils is None:
            return ways
        ways += [(self._leave, 6), (self._crash, 3), (self._cut, 6), (self._mend, 5), (self._arrive, 4)]
        losses = [(self._lose, 3), (self._save, 3), (self._restore, 3)]
        return ways + [(partial(lose, self._perils), often) for lose, often in losses]

    async def _ask(self, worker: Worker | None = None) -> None:
        worker = worker or self._one()
        wanted = [self._wish(worker) for _ in range(1 if worker.is_cut else self._chance.randint(1, 3))]
        asked = [asyncio.ensure_future(worker.store.acquire(wish)) for wish in wanted]
        await asyncio.wait(asked)
        for wish, ask in zip(wanted, asked, strict=True):
            self._answered(worker, wish, ask)

    def _answered(self, worker: Worker, wish: Lease, ask: asyncio.Future[Answer]) -> None:
        """Take note of an answer, which is the last that the reference gave, or an error with a reason."""
        if error := ask.exception():
            has_reason = worker.is_lost if isinstance(error, LeasesLostError) else worker.is_cut
            self.expect(isinstance(error, StoreError) and has_reason, f"{wish.id}: {error!r}")
            return
        answer, expected = ask.result(), self._answers.get(wish.id)
        self.expect(answer == expected, f"{wish.id}: {answer} instead of {expected}")
        self.expect(not worker.is_lost, f"{wish.id}: {answer} after a loss")
        if isinstance(answer, Admitted):
            worker.has([answer.lease], self.reference.slots.now)

    async def _leave(self) -> None:
        """Ask, and be gone at any moment."""
        worker = self._one()
        wish = self._wish(worker)
        asking = asyncio.ensure_future(worker.store.acquire(wish))
        await turns(number := self._chance.randint(0, 12))
        self._tell(f"  and leaves after {number} turns")
        asking.cancel()
        worker.store.release(wish)
        await asyncio.gather(asking, return_exceptions=True)

    async def _give_back(self, worker: Worker | None = None) -> None:
        """Release something, or release it again."""
        worker = worker or self._one()
        some = [*worker.held.values(), *worker.given_back[-2:]]
        for lease in self._chance.sample(some, min(len(some), self._chance.randint(1, 3))):
            self._tell(f"{worker.name} gives {lease.id} back")
            worker.gives_back(lease)

    async def _renew(self, worker: Worker | None = None) -> None:
        """Renew what is held, all but seldom, and give some of it back meanwhile."""
        worker = worker or self._one()
        some = list(worker.held.values())
        if self._chance.random() < 0.1 and some:
            worker.renewed_at.pop(some.pop().id, None)
        self._tell(f"{worker.name} renews {[lease.id for lease in some]}")
        renewal = asyncio.ensure_future(worker.store.renew(some))
        await turns(self._chance.randint(0, 6))
        if self._chance.random() < 0.2 and some:
            self._tell(f"  and gives {some[0].id} back meanwhile")
            worker.gives_back(some.pop(0))
        await asyncio.wait({renewal})
        self._renewed(worker, some, renewal.exception())

    def _renewed(self, worker: Worker, some: Sequence[Lease], error: BaseException | None) -> None:
        if error is None:
            worker.is_lost = False
            worker.has(some, self.reference.slots.now)
        else:
            has_reason = worker.is_lost if isinstance(error, LeasesLostError) else worker.is_cut
            self.expect(isinstance(error, StoreError) and has_reason, f"{error!r} where nothing was amiss")

    async def _age(self) -> None:
        seconds = self._chance.choice([STEP, STEP, STEP, 3 * STEP])
        self._tell(f"{seconds} s pass")
        await self._pass(seconds)
        for worker in self._workers:
            if self._chance.random() < PUNCTUAL:
                await self._beat(worker)

    async def _stall(self) -> None:
        """Let one worker be held up for longer than a time to live, or nobody, while others are punctual."""
        stalled = self._chance.choice([None, *self._workers])
        self._tell(f"{stalled.name if stalled else 'nobody'} is held up")
        for _ in range(4):
            await self._pass(STEP)
            for worker in self._workers:
                if worker is not stalled:
                    await self._beat(worker)

    async def _beat(self, worker: Worker) -> None:
        """Renew everything, as a worker does after a third of a time to live."""
        _hurry(worker)
        some = list(worker.held.values())
        self._tell(f"{worker.name} beats")
        for _ in range(2):  # the second time makes good a loss
            (error,) = await asyncio.gather(worker.store.renew(some), return_exceptions=True)
            self._renewed(worker, some, error)
            await self._quiet()

    async def _free(self) -> None:
        """Let an admin free a scope, a lease, or a slot, most often one that is in use."""
        worker = self._one()
        slots = [(slot.scope, slot.lease) for slot in self.reference.slots.holdings()]
        scope, lease = self._chance.choice([*slots, (SCOPES[0], "unknown")])
        asked = self._chance.choice([(None, None), (scope, None), (None, lease), (scope, lease)])
        if not worker.is_cut:
            self._tell(f"{worker.name} frees {asked[1]} in {asked[0]}")
            await worker.store.free(scope=asked[0], lease=asked[1])

    async def _crash(self) -> None:
        """End a worker, in the midst of a call or not, and start another."""
        worker = self._workers.pop(self._chance.randrange(len(self._workers)))
        worker.road.mishaps.clear()
        worker.road.usual = self._chance.choice([call_silent, reply_silent])
        if self._chance.random() < 0.5:
            asking = asyncio.ensure_future(worker.store.acquire(self._wish(worker)))
            asking.add_done_callback(lambda ask: ask.cancelled() or ask.exception())
            await self._quiet()
        self._tell(f"{worker.name} is killed")
        worker.road.usual = call_silent
        self._died[worker.name] = self.reference.slots.now
        self._start()

    async def _cut(self) -> None:
        """Cut a worker off, which may go on for a while."""
        worker = self._one()
        self._tell(f"{worker.name} is cut off")
        worker.is_cut = True
        worker.road.mishaps.clear()
        worker.road.usual = self._chance.choice([call_lost, reply_lost])
        _hurry(worker)
        acts = [self._ask, self._give_back, self._renew]
        for act in self._chance.choices(acts, k=self._chance.randint(0, 3)):
            await act(worker)
            await self._quiet()
        if self._chance.random() < 0.7:
            await self._mend()

    async def _mend(self) -> None:
        for worker in self._workers:
            if worker.is_cut:
                self._tell(f"{worker.name} is connected again")
                worker.is_cut = False
                worker.road.usual = arrived
                _hurry(worker)
                await worker.store.snapshot()

    async def _arrive(self) -> None:
        """Let a call come that was held up, and long given up by its sender."""
        if self._late:
            call = self._late.pop(self._chance.randrange(len(self._late)))
            self._tell(f"call {call.number} of {call.worker} arrives late")
            self._ghosts |= {lease.id for lease in (*(ask.lease for ask in call.asks), *call.renewals)}
            await asyncio.gather(self._backend.exchange(call), return_exceptions=True)

    async def _lose(self, perils: Perils) -> None:
        self._tell("everything is lost")
        await perils.lose()
        self.reference = self.reference.lost()

    async def _save(self, perils: Perils) -> None:
        self._tell("a replica is up to date")
        self._saved = await perils.save(), deepcopy(self.reference)

    async def _restore(self, perils: Perils) -> None:
        if self._saved is not None:
            self._tell("the replica takes over")
            state, then = self._saved
            await perils.restore(state)
            self.reference = deepcopy(then).resumed(self.reference)
            self._ghosts |= self.reference.slots.leases()

    def _start(self) -> None:
        self._names += 1
        name = f"w{self._names}"
        road = Road(Watched(self._ground.backend(), self))
        worker = Worker(name, road, shared_store(road, name))
        road.hear = partial(self._heard, worker)
        self._workers.append(worker)

    def _one(self) -> Worker:
        """Return a worker some of whose next calls, or replies, may be lost, or all of them."""
        worker = self._chance.choice(self._workers)
        _hurry(worker)
        if self._perils and not worker.is_cut and self._chance.random() < 0.3:
            kinds = [call_lost, reply_lost, self._held_up]
            worker.road.mishaps += self._chance.choices(kinds, k=self._chance.randint(1, 2))
            self._tell(f"{worker.name} loses {len(worker.road.mishaps)} calls")
        return worker

    async def _held_up(self, _: Backend, exchange: Exchange) -> Reply:
        if self._perils and self._perils.has_late_calls:
            self._late.append(exchange)
        raise ConnectionError

    def _wish(self, worker: Worker) -> Lease:
        self._leases += 1
        scopes = self._chance.sample(SCOPES, self._chance.randint(1, len(SCOPES)))
        wish = Lease(f"lease-{self._leases}", tuple(self._limit(scope) for scope in scopes), worker.name)
        limits = ", ".join(f"{limit.scope.limit}:{limit.capacity}:{limit.mode}" for limit in wish.limits)
        self._tell(f"{worker.name} asks for {wish.id} of {limits}")
        return wish

    def _limit(self, scope: Scope) -> Limit:
        capacity = self._chance.choice([0, 1, 1, 2, 2, 3, 4])
        return Limit(scope, capacity, self._chance.choice(["enforce", "enforce", "observe"]))

    async def _pass(self, seconds: float) -> None:
        await self._ground.age(seconds)
        self.reference.age(seconds)

    async def _compare(self) -> None:
        """Expect what is held to be what the reference holds, and nothing that nobody knows of."""
        await self._quiet()
        found = [slot async for page in self._backend.holdings() for slot in page]
        held = self.reference.slots.holdings()
        self.expect(Counter(found) == Counter(held), f"held is {_brief(found)}, not {_brief(held)}")
        for worker in self._workers:
            leaked = {slot.lease for slot in found if slot.worker == worker.name}
            leaked -= worker.held.keys() | self._ghosts
            must_renew = worker.is_lost or not worker.has_called
            self.expect(worker.store.lost == must_renew, f"{worker.name} must renew: {not must_renew}")
            self.expect(worker.is_cut or not leaked, f"{worker.name} does not know of its {leaked}")
        now = self.reference.slots.now
        dead = {name for name, died in self._died.items() if now - died > TTL}
        left = [slot for slot in found if slot.worker in dead and slot.lease not in self._ghosts]
        self.expect(not left, f"those who hold {left} are dead")
        if self._wrong:
            raise WrongError("\n".join([f"seed {self._seed}:", *self._log, "but", *self._wrong]))

    async def _quiet(self) -> None:
        """Return when no worker has anything left to tell."""
        idle = 0
        while idle < IDLE_TURNS:
            await asyncio.sleep(0)
            is_busy = self.under_way or any(worker.is_sending for worker in self._workers)
            idle = 0 if is_busy else idle + 1

    async def _end(self) -> None:
        """Give everything back, and let what the dead have lapse."""
        await self._mend()
        for worker in self._workers:
            worker.road.mishaps.clear()
            for lease in list(worker.held.values()):
                worker.gives_back(lease)
        await self._compare()
        await self._pass(3 * STEP)
        self.expect(not self.reference.slots.holdings(), "something is left")
        await self._compare()

    def _tell(self, line: str) -> None:
        self._log.append(line)


def _hurry(worker: Worker) -> None:
    """Let a worker try again at once, or where that is in vain give up at once."""
    shared.PAUSE_SECONDS = PATIENCE if worker.is_cut else 0
    shared.RETRY_SECONDS = NEVER if worker.is_cut else 0


def _brief(holdings: Sequence[Holding]) -> str:
    return ", ".join(sorted(f"{slot.scope.limit}:{slot.lease}" for slot in holdings)) or "nothing"


async def _cancel_all() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
