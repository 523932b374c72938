"""How long slots are held, as far as this worker has seen."""

from __future__ import annotations

import pytest

from litellm_parallel_limits.events import Released, StoreRecovered
from litellm_parallel_limits.hold_times import MOST_SCOPES, HoldTimes
from litellm_parallel_limits.limits import Limit, Refused
from tests.samples import lease, limit


def times(*holds: tuple[Limit, float]) -> HoldTimes:
    """Return the hold times after these leases have ended."""
    found = HoldTimes()
    for held, seconds in holds:
        found(Released(lease(held), seconds))
    return found


def test_nothing_is_known_at_first() -> None:
    """Before the first lease has ended no time is known."""
    assert times().seconds(limit()) is None


def test_first_hold_is_the_measure() -> None:
    """After one lease the time is that of it."""
    assert times((limit(), 4.0)).seconds(limit()) == 4.0


def test_later_holds_move_the_average() -> None:
    """Each later lease moves the average a fifth of the way."""
    assert times((limit(), 4.0), (limit(), 9.0)).seconds(limit()) == pytest.approx(5.0)


def test_recent_holds_count_most() -> None:
    """After a change of pace the average is soon near the new one."""
    found = times((limit(), 100.0), *((limit(), 1.0) for _ in range(25)))
    assert found.seconds(limit()) == pytest.approx(1.0, abs=0.5)


def test_scopes_have_averages_of_their_own() -> None:
    """A scope that is known has its own time, whatever others of its limit take."""
    found = times((limit(of="a"), 1.0), (limit(of="b"), 9.0))
    assert (found.seconds(limit(of="a")), found.seconds(limit(of="b"))) == (1.0, 9.0)


def test_unknown_scope_has_the_time_of_its_limit() -> None:
    """A scope of which no lease has ended is reckoned as its limit is on the whole."""
    found = times((limit(of="a"), 4.0), (limit(of="b"), 9.0), (limit("user"), 100.0))
    assert found.seconds(limit(of="c")) == pytest.approx(5.0)


def test_lease_counts_in_each_of_its_limits() -> None:
    """A lease that ends is a measure of all its limits."""
    found = HoldTimes()
    found(Released(lease(limit("user"), limit("team")), 3.0))
    assert (found.seconds(limit("user")), found.seconds(limit("team"))) == (3.0, 3.0)


def test_other_events_are_no_measure() -> None:
    """Only a lease that ends is a measure."""
    found = HoldTimes()
    found(Refused(limit(), 1))
    found(StoreRecovered())
    assert found.seconds(limit()) is None


def test_scopes_in_use_are_remembered_before_others() -> None:
    """However many scopes there are, those used lately are known, and the rest is forgotten."""
    busy, idle = limit(of="busy"), limit(of="idle")
    found = times((busy, 1.0), (idle, 1.0))
    for number in range(MOST_SCOPES):
        found(Released(lease(limit(of=str(number))), 100.0))
        found(Released(lease(busy), 1.0))
    assert found.seconds(busy) == 1.0
    assert found.seconds(idle) != 1.0
