"""Every store does, whatever is asked of it in whatever order, what a plain dict would do."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from litellm_parallel_limits.limits import Admitted, Answer, Lease, Limit, Refused, Scope
from litellm_parallel_limits.stores import Holding
from tests.samples import lease
from tests.stores.storages import TTL, OpenStorage, Storage

T = TypeVar("T")

STEP = TTL / 3 + 1
"""Seconds: three are more than a time to live, two so much less that the test's own time does not count."""

SCOPES = tuple(Scope(name, (("team", "research"),)) for name in ("a", "b", "c"))
WORKERS = ("w1", "w2")

TRIALS = settings(
    max_examples=100,
    stateful_step_count=30,
    deadline=None,  # a server's time is its own
    suppress_health_check=[HealthCheck.too_slow],
)

limits = st.lists(
    st.builds(Limit, st.sampled_from(SCOPES), st.integers(0, 3), st.sampled_from(["enforce", "observe"])),
    max_size=3,
    unique_by=lambda limit: limit.scope,
)
workers = st.sampled_from(WORKERS)


class Model:
    """A dict of the leases that live, with the steps that each has left."""

    def __init__(self) -> None:
        self.live: dict[str, tuple[Lease, int]] = {}

    def acquire(self, lease: Lease) -> Answer:
        """Do as a store does."""
        counts = [self._count(limit.scope) for limit in lease.limits]
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

    def renew(self, *leases: Lease) -> None:
        """Do as a store does."""
        self.live |= {lease.id: (lease, 3) for lease in leases}

    def release(self, lease: Lease) -> None:
        """Do as a store does."""
        self.live.pop(lease.id, None)

    def age(self) -> None:
        """Let a step pass."""
        self.live = {id_: (lease, left - 1) for id_, (lease, left) in self.live.items() if left > 1}

    def lose(self) -> None:
        """Forget everything."""
        self.live.clear()

    def holdings(self) -> set[Holding]:
        """Return every slot in use."""
        return {Holding.of(lease, limit) for lease, _ in self.live.values() for limit in lease.limits}

    def _count(self, scope: Scope) -> int:
        return sum(
            limit.scope == scope and not lease.is_apart(limit)
            for lease, _ in self.live.values()
            for limit in lease.limits
        )


class Machine(RuleBasedStateMachine):
    """Workers that ask for leases, hold them, and give them back, once or twice."""

    granted: Bundle[Lease] = Bundle("granted")
    open_storage: OpenStorage

    @initialize()
    def begin(self) -> None:
        """Start with nothing held."""
        self.loop = asyncio.new_event_loop()
        self.opened = AsyncExitStack()
        self.storage: Storage = self.run(self.opened.enter_async_context(self.open_storage()))
        self.model = Model()
        self.released: set[str] = set()

    def teardown(self) -> None:
        """Leave nothing behind."""
        self.run(self.opened.aclose())
        self.loop.close()

    def run(self, asked: Coroutine[Any, Any, T]) -> T:
        """Return what a store answers."""
        return self.loop.run_until_complete(asked)

    @rule(target=granted, limits=limits, worker=workers)
    def acquire(self, limits: list[Limit], worker: str) -> Any:
        """Ask for a lease: the answer is the same, to the count."""
        wanted = lease(*limits, worker=worker)
        answer = self.run(self.storage.store(worker).acquire(wanted))
        assert answer == self.model.acquire(wanted)
        if isinstance(answer, Refused):
            return multiple()
        for limit, count in zip(wanted.limits, answer.in_flight, strict=True):
            assert limit.observed or count <= limit.capacity
        return answer.lease

    @rule(lease=granted)
    def release(self, lease: Lease) -> None:
        """Give a lease back, perhaps not for the first time."""
        self.run(self.give_back(lease))
        self.model.release(lease)
        self.released.add(lease.id)

    async def give_back(self, lease: Lease) -> None:
        """Release a lease, and wait until the store has been told."""
        store = self.storage.store(lease.worker)
        store.release(lease)
        await store.snapshot()

    @rule(leases=st.lists(granted, max_size=4))
    def renew(self, leases: list[Lease]) -> None:
        """Renew some of what is held."""
        for worker in WORKERS:
            held = [lease for lease in leases if lease.worker == worker and lease.id not in self.released]
            self.run(self.storage.store(worker).renew(held))
            self.model.renew(*held)

    @rule()
    def age(self) -> None:
        """Let a third of the time to live pass, and a little more."""
        self.run(self.storage.age(STEP))
        self.model.age()

    @rule()
    def lose(self) -> None:
        """Let the storage forget everything."""
        self.run(self.storage.lose())
        self.model.lose()

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        """Every slot in use is one of the model's, and every one of the model's is in use."""
        assert set(self.run(self.storage.store().snapshot()).holdings) == self.model.holdings()


def test_store_is_a_dict_with_deadlines(open_storage: OpenStorage) -> None:
    """No history of requests, renewals, releases, losses and lapses tells a store from the model."""
    machine = type("Machine", (Machine,), {"open_storage": staticmethod(open_storage)})
    run_state_machine_as_test(machine, settings=TRIALS)
