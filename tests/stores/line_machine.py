"""Histories of a line: who asks, waits, leaves, dies, and what is expected of a store meanwhile."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from litellm_parallel_limits.limits import Admitted, Lease, Limit, Patience, Scope, Wait
from litellm_parallel_limits.stores import Holding
from litellm_parallel_limits.stores.exchange import Ask, Backend, Exchange, Grant, Reply, Stands
from litellm_parallel_limits.stores.redis import MOST_GRANTS
from tests.stores.line_reference import LineReference
from tests.stores.stages import OpenStage, Stage
from tests.stores.storages import TTL

SCOPES = tuple(Scope(name) for name in "abcd")
WORKERS = 3

MOMENT = 0.001
"""Seconds from one call to the next."""

PASSING = (9.0, 13.0)
"""Seconds of which no sum is near a time to live: how many calls there were decides over no lapse."""

CAPACITIES = ([1], [1, 1, 1, 2], [2, 2, 1, 3], [1, 2])
"""Of each scope: few, so that many wait."""

WAITS = st.sampled_from(
    [None, *(Wait(60, most, flow) for most in (2, 50, 50, 50) for flow in ("", "x", "y"))]
)
PATIENCES = st.sampled_from(
    [
        *[Patience()] * 5,
        Patience(waited=4),
        Patience(waited=23),
        Patience(waited=14),
        Patience(1),
        Patience(2),
        Patience(10),
        Patience(-2),
    ]
)
WAITED = st.sampled_from([0.0, 0.0, 23.0])
LIMITS = [
    st.builds(Limit, st.just(scope), st.sampled_from(capacities), modes, st.just("share"), WAITS)
    for scope, capacities, modes in zip(
        SCOPES,
        CAPACITIES,
        [*[st.just("enforce")] * 3, st.sampled_from(["enforce", "observe"])],
        strict=True,
    )
]
WISHES = st.sampled_from(
    [(0,), (0,), (1,), (1,), (0, 1), (1, 0), (2, 1), (0, 2), (2,), (3, 0), (1, 3, 0), (2, 0, 1)]
).flatmap(lambda chosen: st.tuples(*(LIMITS[index] for index in chosen)))

T = TypeVar("T")


@dataclass(eq=False)
class Worker:
    """A worker, as it calls."""

    name: str
    backend: Backend
    number: int = 0
    epoch: int = 0
    called_at: float = 0.0
    held: dict[str, Lease] = field(default_factory=dict)
    waits: dict[str, Ask] = field(default_factory=dict)
    just_granted: list[Ask] = field(default_factory=list)

    def exchange(
        self,
        releases: Sequence[Ask] = (),
        renewals: Sequence[Lease] = (),
        asks: Sequence[Ask] = (),
    ) -> Exchange:
        """Return its next call."""
        self.number += 1
        return Exchange(
            self.name,
            self.number,
            acknowledged=0,
            lately=False,
            epoch=self.epoch,
            releases=releases,
            renewals=renewals,
            asks=asks,
        )


class LineMachine(RuleBasedStateMachine):
    """What can happen. After each step a store is expected to have done what the reference does."""

    def __init__(self, open_stage: OpenStage, *, has_many_workers: bool) -> None:
        super().__init__()
        self._loop = asyncio.new_event_loop()
        self._open = AsyncExitStack()
        self._stage: Stage = self._run(self._open.enter_async_context(open_stage()))
        self._reference = LineReference(has_calls=has_many_workers)
        self._is_mortal = has_many_workers
        self._names = self._leases = 0
        self._granted: set[str] = set()
        self._told: set[str] = set()
        self._workers: list[Worker] = []
        self._asked: dict[str, Lease] = {}
        for _ in range(WORKERS if has_many_workers else 1):
            self._start()

    def teardown(self) -> None:
        """Close what is open."""
        self._run(self._open.aclose())
        self._loop.close()

    @rule(
        data=st.data(),
        wishes=st.lists(
            st.tuples(WISHES, st.one_of(st.none(), PATIENCES, PATIENCES)), min_size=1, max_size=3
        ),
    )
    def ask(self, data: st.DataObject, wishes: Sequence[tuple[tuple[Limit, ...], Patience | None]]) -> None:
        """Some ask, some of whom would wait."""
        worker = self._one(data)
        self._call(worker, asks=[Ask(self._lease(worker, limits), patience) for limits, patience in wishes])

    @rule(data=st.data(), limits=WISHES, number=st.integers(2, 4), patience=PATIENCES)
    def crowd(self, data: st.DataObject, limits: tuple[Limit, ...], number: int, patience: Patience) -> None:
        """Several ask for the same."""
        worker = self._one(data)
        self._call(worker, asks=[Ask(self._lease(worker, limits), patience) for _ in range(number)])

    @precondition(lambda self: self._holders())
    @rule(data=st.data(), number=st.integers(1, 3))
    def release(self, data: st.DataObject, number: int) -> None:
        """Some are done."""
        worker = data.draw(st.sampled_from(self._holders()), "worker")
        held = data.draw(st.permutations(sorted(worker.held)), "leases")[:number]
        self._call(worker, releases=[Ask(worker.held.pop(id_)) for id_ in held])

    @precondition(lambda self: self._holders())
    @rule(data=st.data(), times=st.integers(1, 12))
    def relay(self, data: st.DataObject, times: int) -> None:
        """One after the other is done, and asks for the same again."""
        for _ in range(times):
            if not (holders := self._holders()):
                return
            worker = data.draw(st.sampled_from(holders), "worker")
            held = worker.held.pop(next(iter(worker.held)))
            again = self._lease(worker, held.limits)
            self._call(worker, releases=[Ask(held)], asks=[Ask(again, Patience(waited=data.draw(WAITED)))])

    @rule(data=st.data(), times=st.integers(6, 10))
    def wear_out(self, data: st.DataObject, times: int) -> None:
        """Those that need two slots meet others that always wait for one of them."""
        worker = self._one(data)
        both = tuple(Limit(scope, 1, wait=Wait(60, 50)) for scope in SCOPES[:2])
        asked = [both[:1], both[1:], both, both]
        self._call(worker, asks=[Ask(self._lease(worker, limits), Patience()) for limits in asked])
        for number in range(times):
            here = both[number % 2]
            for one in self._workers:
                done = [held for held in one.held.values() if _has(held, here.scope)]
                for held in done:
                    del one.held[held.id]
                asks = [Ask(self._lease(one, (here,)), Patience()) for _ in done]
                self._call(one, releases=list(map(Ask, done)), asks=asks)

    @precondition(lambda self: any(worker.waits for worker in self._workers))
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        """One who waits leaves."""
        worker = data.draw(st.sampled_from([one for one in self._workers if one.waits]), "worker")
        ask = worker.waits.pop(data.draw(st.sampled_from(sorted(worker.waits)), "lease"))
        self._call(worker, releases=[ask])

    @precondition(lambda self: any(worker.just_granted for worker in self._workers))
    @rule(data=st.data())
    def leave_just_granted(self, data: st.DataObject) -> None:
        """One leaves who was given its slots and has not heard of it."""
        worker = data.draw(st.sampled_from([one for one in self._workers if one.just_granted]), "worker")
        ask = data.draw(st.sampled_from(worker.just_granted), "lease")
        worker.held.pop(ask.lease.id, None)
        self._call(worker, releases=[ask])

    @rule(data=st.data(), seconds=st.sampled_from(PASSING))
    def pass_time(self, data: st.DataObject, seconds: float) -> None:
        """Time passes. Workers renew what they hold, but for one perhaps, who may be dead."""
        self._pass(seconds)
        silent = data.draw(st.sampled_from([None, None, *self._workers]) if self._is_mortal else st.none())
        for worker in self._workers:
            if worker is not silent:
                self._beat(worker)

    @precondition(lambda self: self._is_mortal)
    @rule(data=st.data())
    def kill(self, data: st.DataObject) -> None:
        """A worker is killed, and another started."""
        self._workers.remove(self._one(data))
        self._start()

    @precondition(lambda self: self._is_mortal)
    @rule(data=st.data())
    def stall(self, data: st.DataObject) -> None:
        """A worker is held up for longer than a time to live."""
        stalled = self._one(data)
        for _ in range(4):
            self._pass(PASSING[0])
            for worker in self._workers:
                if worker is not stalled:
                    self._beat(worker)

    @precondition(lambda self: self._holders())
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        """A worker renews a lease no more."""
        worker = data.draw(st.sampled_from(self._holders()), "worker")
        del worker.held[data.draw(st.sampled_from(sorted(worker.held)), "lease")]

    @precondition(lambda self: self._reference.slots.holdings())
    @rule(data=st.data(), is_whole=st.booleans())
    def free(self, data: st.DataObject, is_whole: bool) -> None:  # noqa: FBT001
        """An admin frees a slot, or all of a scope."""
        held = sorted(self._reference.slots.holdings(), key=lambda slot: (slot.scope.key, slot.lease))
        slot = data.draw(st.sampled_from(held), "slot")
        asked = [slot.scope], None if is_whole else slot.lease
        worker = self._workers[0]
        found = self._run(worker.backend.free(*asked))
        assert found == self._reference.slots.free(*asked)
        self._call(worker)

    def _one(self, data: st.DataObject) -> Worker:
        worker: Worker = data.draw(st.sampled_from(self._workers), "worker")
        return worker

    def _holders(self) -> list[Worker]:
        return [worker for worker in self._workers if worker.held]

    def _start(self) -> None:
        self._names += 1
        worker = Worker(f"w{self._names}", self._stage.backend())
        self._workers.append(worker)
        self._call(worker)

    def _lease(self, worker: Worker, limits: tuple[Limit, ...]) -> Lease:
        self._leases += 1
        lease = Lease(f"lease-{self._leases:03}", limits, worker.name)
        self._asked[lease.id] = lease
        return lease

    def _pass(self, seconds: float) -> None:
        self._run(self._stage.age(seconds))
        self._reference.slots.age(seconds)
        left = self._reference.slots.leases()
        for worker in self._workers:
            worker.held = {id_: lease for id_, lease in worker.held.items() if id_ in left}

    def _beat(self, worker: Worker) -> None:
        """Let a worker renew what it holds."""
        self._call(worker, renewals=list(worker.held.values()))

    def _call(
        self,
        worker: Worker,
        *,
        releases: Sequence[Ask] = (),
        renewals: Sequence[Lease] = (),
        asks: Sequence[Ask] = (),
    ) -> None:
        """Let a worker call, and the reference do the same.

        Those have left that waited in a worker which did not call for a time to live.
        """
        self._pass(MOMENT)
        if self._is_mortal and self._reference.slots.now - worker.called_at > TTL:
            releases = [*releases, *worker.waits.values()]
            worker.waits.clear()
        worker.called_at = self._reference.slots.now
        for one in self._workers:
            one.just_granted.clear()
        call = worker.exchange(releases, renewals, asks)
        reply = self._run(worker.backend.exchange(call))
        worker.epoch = reply.epoch
        expected = self._reference.exchange(call)
        assert list(reply.answers) == expected
        self._take(worker, asks, reply)
        self._tell_turns()
        self._run(self._compare(worker, reply))
        self._expect_promises()

    def _take(self, worker: Worker, asks: Sequence[Ask], reply: Reply) -> None:
        for ask, answer in zip(asks, reply.answers, strict=True):
            if isinstance(answer, Admitted):
                worker.held[ask.lease.id] = answer.lease
            elif isinstance(answer, Stands):
                worker.waits[ask.lease.id] = ask

    def _tell_turns(self) -> None:
        """Tell the workers whose turn it was, in the order that the reference expects."""
        expected: defaultdict[str, list[Grant]] = defaultdict(list)
        for name, grant in self._reference.granted:
            expected[name].append(grant)
            assert grant.id not in self._granted, "given twice"
            self._granted.add(grant.id)
        self._reference.granted.clear()
        for worker in self._workers:
            told = [grant for grant in self._run(_told(worker)) if grant.id not in self._told]
            self._told |= {grant.id for grant in told}  # who begins to listen is told what it was before
            assert told == expected[worker.name], (
                f"turns in {worker.name}: {told} not {expected[worker.name]}"
            )
            for grant in told:
                ask = worker.waits.pop(grant.id)
                worker.held[grant.id] = grant.to(ask.lease).lease
                worker.just_granted.append(ask)

    async def _compare(self, worker: Worker, reply: Reply) -> None:
        found = [slot async for page in worker.backend.holdings() for slot in page]
        assert Counter(found) == Counter(self._reference.slots.holdings()), _brief(found)
        scopes = list(dict.fromkeys(slot.scope for slot in found))
        waiting = await worker.backend.waiting(scopes)
        assert list(waiting) == [self._reference.waiting(scope) for scope in scopes]
        if not self._reference.lanes:
            assert await self._stage.lines() == set()
        if self._is_mortal:
            assert (reply.alarm_ms > 0) == bool(self._reference.lanes), "somebody must look when leases lapse"
        self._expect_no_ghosts(found)

    def _expect_no_ghosts(self, found: Sequence[Holding]) -> None:
        """Expect nobody to hold anything who waits, and nobody whose worker has not called for long."""
        holders = {slot.lease for slot in found}
        assert not holders & {waiter.lease.id for waiter, _ in self._reference.waiters()}
        for scope in {slot.scope for slot in found}:
            limits = [_limit_in(scope, self._asked[slot.lease]) for slot in found if slot.scope == scope]
            enforced = [limit for limit in limits if not limit.observed]
            most = max((limit.capacity for limit in enforced), default=0)
            assert len(enforced) <= most, f"{len(enforced)} hold {scope.key}"

    def _expect_promises(self) -> None:
        """Expect nobody to wait who could be admitted, unless a slot is kept free for somebody else."""
        for waiter, lane in self._reference.waiters():
            if self._reference.is_live(waiter) and waiter is lane.first:
                assert self._reference.lacking(lane.limits, lane), f"{waiter.lease.id} waits for nothing"

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(coroutine)


def machine(open_stage: OpenStage, *, has_many_workers: bool) -> Any:
    """Return what makes a machine on a stage of its own."""
    return partial(LineMachine, open_stage, has_many_workers=has_many_workers)


async def _told(worker: Worker) -> list[Grant]:
    """Return what the worker's waiters have been given, without waiting for more."""
    told: list[Grant] = []
    async with aclosing(worker.backend.grants(worker.name)) as turns:
        async for some in turns:
            told += some
            if len(some) < MOST_GRANTS:
                break
    return told


def _has(lease: Lease, scope: Scope) -> bool:
    return any(limit.scope == scope for limit in lease.limits)


def _limit_in(scope: Scope, lease: Lease) -> Limit:
    return next(limit for limit in lease.limits if limit.scope == scope)


def _brief(holdings: Sequence[Holding]) -> str:
    return ", ".join(sorted(f"{slot.scope.key}:{slot.lease}" for slot in holdings)) or "nothing"
