"""Whatever is asked of a line, in whatever order, every store gives the turns that the reference gives.

Deeper: `LINES=1000 pytest tests/stores/test_line.py`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.internal.conjecture import providers
from hypothesis.internal.constants_ast import Constants
from hypothesis.stateful import run_state_machine_as_test

from litellm_parallel_limits.stores import line, redis
from tests.stores.line_machine import LineMachine, Worker, machine
from tests.stores.stages import OpenStage

PHASES = (Phase.generate, Phase.shrink) if "SHRINK" in os.environ else (Phase.generate,)
"""To find the shortest history takes minutes."""

EXAMPLES = {"memory": 40, "host": 15, "fakeredis": 4, "redis": 20}
"""Ours: about five seconds each."""


@pytest.fixture(autouse=True)
def _every_turn_in_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (redis, line):
        monkeypatch.setattr(module, "MOST_TURNS", 1000)


@pytest.fixture(autouse=True)
def _the_same_in_each_run(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Hypothesis tries constants of whatever modules other tests have loaded: histories would differ."""
    monkeypatch.setattr(providers, "_get_local_constants", Constants, raising=False)
    providers.CONSTANTS_CACHE.cache.clear()
    yield
    providers.CONSTANTS_CACHE.cache.clear()


@pytest.mark.parametrize("kind", EXAMPLES)
def test_line_is_that_of_the_reference(kind: str, open_stage: OpenStage) -> None:
    """No history tells the line of a store from the reference, nor breaks what is promised of it."""
    run_state_machine_as_test(
        machine(open_stage, has_many_workers=kind != "memory"),
        settings=settings(
            max_examples=int(os.environ.get("LINES", EXAMPLES[kind])),
            stateful_step_count=25,
            deadline=None,
            derandomize="LINES" not in os.environ,
            database=None,
            phases=PHASES,
            suppress_health_check=list(HealthCheck),
        ),
    )


class Chosen:
    """Chooses these workers, by name and in this order."""

    def __init__(self, workers: list[Worker], *names: str) -> None:
        self._workers = workers
        self._names = list(names)

    def draw(self, *_: object) -> Worker:
        """Return the next."""
        name = self._names.pop(0)
        return next(worker for worker in self._workers if worker.name == name)


@pytest.mark.parametrize("kind", ["host", "fakeredis", "redis"])
def test_limits_are_not_kept_free_for_the_dead(open_stage: OpenStage) -> None:
    """Whose worker died while its limits were closed to others has them no longer, wherever it stands."""
    line = LineMachine(open_stage, has_many_workers=True)
    chosen: Any = Chosen(line._workers, "w2", "w3", "w2", "w2", "w3")  # noqa: SLF001
    try:
        line.stall(data=chosen)
        line.wear_out(data=chosen, times=10)
        line.pass_time(data=chosen, seconds=9.0)
        line.wear_out(data=chosen, times=8)
        line.stall(data=chosen)
    finally:
        line.teardown()
