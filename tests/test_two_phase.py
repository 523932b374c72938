"""The design for several nodes, as far as a simulation can tell."""

from __future__ import annotations

import pytest

from tests.benchmarks.two_phase import ORDERS, POOL_LIMIT, TENANT_LIMIT, Order, Simulation, busiest


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("latency", [0.0005, 0.05])
def test_never_more_than_the_limit_and_nothing_is_left(order: Order, latency: float) -> None:
    """Whatever a phase takes, no scope is overrun at the provider, and every slot comes back."""
    found = Simulation(order, latency, load=2, requests=2_000).run()
    assert found.peaks.pop("pool") == POOL_LIMIT
    assert max(found.peaks.values()) <= TENANT_LIMIT
    assert found.refused > 500
    assert found.left == 0


def test_all_in_one_call_refuses_nobody_needlessly() -> None:
    """Nobody holds a slot that it will not use."""
    assert Simulation("one call", 0.05, load=2, requests=2_000).run().needless == 0


@pytest.mark.parametrize("order", ORDERS)
def test_no_phase_takes_time(order: Order) -> None:
    """Then two phases are as good as one."""
    assert Simulation(order, 0, load=2, requests=2_000).run().needless == 0


def test_the_busiest_node_has_the_hottest_pool() -> None:
    """More nodes make it no less busy than that."""
    assert busiest(1) == pytest.approx(1)
    assert busiest(64) < busiest(4) < 1
    assert busiest(64) > 0.1
