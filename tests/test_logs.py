"""What the operator's log is told."""

from __future__ import annotations

import pytest

from litellm_parallel_limits.errors import StoreError
from litellm_parallel_limits.events import Event, InvalidLimit, Released, StoreFailed, StoreRecovered
from litellm_parallel_limits.limits import Admitted, Refused
from litellm_parallel_limits.logs import Log
from tests.samples import lease, limit

FAILED = StoreFailed("acquire", StoreError("no answer in 0.25 s"))


def lines(caplog: pytest.LogCaptureFixture, *events: Event) -> list[tuple[str, str]]:
    """Return the level and text of each line that is written of these events."""
    log = Log()
    for event in events:
        log(event)
    return [(record.levelname, record.getMessage()) for record in caplog.records]


def test_outage_is_one_line_down_and_one_up(caplog: pytest.LogCaptureFixture) -> None:
    """However often the store fails, it is said once that it is out, and once that it is back."""
    (down, up) = lines(caplog, FAILED, FAILED, FAILED, StoreRecovered())
    assert down[0] == "ERROR"
    assert "store is out (acquire: no answer in 0.25 s)" in down[1]
    assert up == ("WARNING", "Parallel limits: the store is back")


def test_each_outage_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """A second outage is told like the first."""
    assert len(lines(caplog, FAILED, StoreRecovered(), FAILED, StoreRecovered())) == 4


def test_bad_value_is_told_once_a_source(caplog: pytest.LogCaptureFixture) -> None:
    """A source of values that are no numbers is named once, however often it is met."""
    one, other = InvalidLimit("team: team metadata max_parallel_requests"), InvalidLimit("user: auth")
    told = lines(caplog, one, one, other, one)
    assert [level for level, _ in told] == ["WARNING", "WARNING"]
    assert "(team: team metadata max_parallel_requests)" in told[0][1]


def test_requests_are_no_news(caplog: pytest.LogCaptureFixture) -> None:
    """No request writes a line by itself."""
    held = lease(limit())
    assert lines(caplog, Admitted(held, (1,)), Refused(limit(), 1), Released(held, 1.0)) == []


def test_log_is_named_after_the_package(caplog: pytest.LogCaptureFixture) -> None:
    """The operator finds the lines under the package's name."""
    lines(caplog, FAILED)
    assert caplog.records[0].name == "litellm_parallel_limits"
