"""The load test's own arithmetic."""

from __future__ import annotations

import pytest

from tests.load.record import Record, Strike
from tests.load.watch import Sample
from tests.rig.ledger import History, Window

FULL = History([(0.0, 1), (0.1, 2), (0.2, 3), (0.3, 4)])


def record(history: History, held: dict[float, int | None]) -> Record:
    """Return the record of 10 s in which the store said what it `held` at these moments, and in between."""
    moments = [tenth / 10 for tenth in range(100)]
    last = {moment: held[max(at for at in held if at <= moment)] for moment in moments}
    samples = [Sample(at, None if number is None else {"user": number}) for at, number in last.items()]
    whole = Window(0, 10)
    return Record(whole, whole, [], {"user": history}, samples, {}, {}, first_admitted=True)


def test_history_tells_peak_and_mean_of_a_window() -> None:
    """A window begins with what was in flight before it, and weighs each number by its time."""
    history = History([(1.0, 1), (2.0, 3), (3.0, 0), (9.0, 5)])
    window = Window(1.5, 4.0)
    assert history.peak(window) == 3
    assert history.busy_seconds(window) == pytest.approx(0.5 * 1 + 1.0 * 3)
    assert history.mean(window) == pytest.approx(3.5 / 2.5)
    assert history.begun(window) == 2
    assert history.peak(Window(0.0, 0.5)) == 0


def test_count_that_never_errs_is_exact_at_once() -> None:
    """A fault that nobody notices takes no time."""
    assert record(FULL, {0.0: 4}).exact_again(Strike(2.0, 2.0)) == 2.0


def test_count_is_not_exact_while_the_store_does_not_know() -> None:
    """Slots that nobody uses, or that the store does not tell of, keep the count from being exact."""
    wrong = record(FULL, {0.0: 4, 2.0: 0, 2.5: None, 5.0: 4}).exact_again(Strike(2.0, 2.0))
    assert wrong == pytest.approx(5.0)


def test_fault_that_lasts_is_over_first() -> None:
    """While it lasts the count may be exact yet."""
    assert record(FULL, {0.0: 4}).exact_again(Strike(2.0, 4.0)) == 4.0


def test_count_over_the_limit_is_not_exact() -> None:
    """It does not help that the store knows."""
    over = History([*FULL.steps, (3.0, 5), (6.0, 4)])
    assert record(over, {0.0: 4, 3.0: 5, 6.0: 4}).exact_again(Strike(2.0, 2.0)) == pytest.approx(6.0)


def test_count_that_stays_wrong_is_never_exact() -> None:
    """Slots that are not given again although they are free make it never."""
    idle = History([*FULL.steps, (2.0, 3)])
    assert record(idle, {0.0: 4}).exact_again(Strike(2.0, 2.0)) is None
    assert record(idle, {0.0: 4, 2.0: 3}).exact_again(Strike(2.0, 2.0)) is None
