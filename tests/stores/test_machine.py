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
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from litellm_parallel_limits.limits import Admitted, Answer, Lease, Limit, Refused, Scope
from litellm_parallel_limits.stores import Holding, Store
from tests.samples import lease
from tests.stores.storages import TTL, OpenStorage, Storage

T = TypeVar("T")

STEP = TTL / 3 + 1
"""Seconds: three are more than a time to live, two so much less that the test's own time does not count."""

SCOPES = tuple(Scope(name, (("team", "research"),)) for name in ("a", "b"))
WORKERS = ("w1", "w2")
MANY = 3
"""Leases: less is not worth losing."""

TRIALS = settings(
    max_examples=50,
    stateful_step_count=30,
    deadline=None,  # a server's time is its own
    suppress_health_check=[HealthCheck.too_slow],
)

limits = st.lists(
    st.builds(Limit, st.sampled_from(SCOPES), st.integers(0, 4), st.sampled_from(["enforce", "observe"])),
    min_size=1,
    unique_by=lambda limit: limit.scope,
)
wishes = st.lists(
    st.builds(lambda limits, worker: lease(*limits, worker=worker), limits, st.sampled_from(WORKERS)),
    min_size=1,
    max_size=4,
)


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
    """Two workers that ask for leases, hold them, and give them back."""

    held: Bundle[Lease] = Bundle("held")
    given_back: Bundle[Lease] = Bundle("given_back")
    open_storage: OpenStorage

    @initialize(target=held, wanted=wishes)
    def begin(self, wanted: list[Lease]) -> Any:
        """Start with some requests, so that there is something to do even where no others follow."""
        self.loop = asyncio.new_event_loop()
        self.opened = AsyncExitStack()
        self.storage: Storage = self.run(self.opened.enter_async_context(self.open_storage()))
        self.model = Model()
        return self.ask(wanted)

    def teardown(self) -> None:
        """Leave nothing behind."""
        self.run(self.opened.aclose())
        self.loop.close()

    def run(self, asked: Coroutine[Any, Any, T]) -> T:
        """Return what a store answers."""
        return self.loop.run_until_complete(asked)

    @rule(target=held, wanted=wishes)
    def acquire(self, wanted: list[Lease]) -> Any:
        """Ask for leases, one after another."""
        return self.ask(wanted)

    def ask(self, wanted: list[Lease]) -> Any:
        """Return what is granted: the answers are the model's, to the count."""
        granted = []
        for wish in wanted:
            answer = self.run(self.storage.store(wish.worker).acquire(wish))
            assert answer == self.model.acquire(wish)
            if isinstance(answer, Admitted):
                granted.append(answer.lease)
                counts = zip(wish.limits, answer.in_flight, strict=True)
                assert all(limit.observed or count <= limit.capacity for limit, count in counts)
        return multiple(*granted)

    @rule(target=given_back, lease=consumes(held))
    def release(self, lease: Lease) -> Lease:
        """Give a lease back."""
        self.give_back(lease)
        return lease

    @rule(lease=given_back)
    def release_again(self, lease: Lease) -> None:
        """Give back what was given back before."""
        self.give_back(lease)

    def give_back(self, lease: Lease) -> None:
        """Release a lease, and wait until the storage has been told."""
        self.run(_told(self.storage.store(lease.worker), lease))
        self.model.release(lease)

    @rule(leases=st.lists(held, min_size=1, max_size=4))
    def renew(self, leases: list[Lease]) -> None:
        """Renew some of what each worker holds."""
        for worker in WORKERS:
            own = [lease for lease in leases if lease.worker == worker]
            self.run(self.storage.store(worker).renew(own))
            self.model.renew(*own)

    @precondition(lambda self: self.model.live)
    @rule()
    def age(self) -> None:
        """Let a third of the time to live pass, and a little more."""
        self.run(self.storage.age(STEP))
        self.model.age()

    @precondition(lambda self: len(self.model.live) > MANY)
    @rule()
    def lose(self) -> None:
        """Let the storage forget everything."""
        self.run(self.storage.lose())
        self.model.lose()

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        """Every slot in use is one of the model's, and every one of the model's is in use."""
        assert set(self.run(self.storage.store().snapshot()).holdings) == self.model.holdings()


async def _told(store: Store, lease: Lease) -> None:
    store.release(lease)
    await store.snapshot()


def test_store_is_a_dict_with_deadlines(open_storage: OpenStorage) -> None:
    """No history of requests, renewals, releases, losses and lapses tells a store from the model."""
    machine = type("Machine", (Machine,), {"open_storage": staticmethod(open_storage)})
    run_state_machine_as_test(machine, settings=TRIALS)
