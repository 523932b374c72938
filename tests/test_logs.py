"""What the operator's log is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from unittest import mock

import pytest

from litellm_parallel_limits.errors import StoreError
from litellm_parallel_limits.events import (
    Event,
    InvalidLimit,
    LookUpFailed,
    Released,
    StoreFailed,
    StoreRecovered,
)
from litellm_parallel_limits.limits import Admitted, Limit, Refused, Scope
from litellm_parallel_limits.logs import QUIET_SECONDS, Log
from tests.clock import Clock
from tests.samples import lease, limit, observed

FAILED = StoreFailed("acquire", StoreError("no answer in 0.25 s"))


def lines(caplog: pytest.LogCaptureFixture, *events: Event) -> list[tuple[str, str]]:
    """Return the level and text of each line that is written of these events."""
    log = Log(later=lambda *_: None)
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


def test_admitted_requests_are_no_news(caplog: pytest.LogCaptureFixture) -> None:
    """No request that is admitted writes a line by itself."""
    held = lease(limit())
    assert lines(caplog, Admitted(held, (1,)), Released(held, 1.0)) == []


def test_refusals_are_one_line_when_they_begin_and_one_when_they_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """However many requests a limit refuses, it is said once that it does, and once that it does no more."""
    clock, calls = Clock(), list[Callable[[], None]]()
    log = Log(clock, lambda _, call: calls.append(call))
    for _ in range(5):
        log(Refused(limit("team", 40), 40))
        clock.advance(1)
    clock.advance(QUIET_SECONDS - 2)
    calls.pop()()
    clock.advance(1)
    calls.pop()()
    assert (calls, [record.getMessage() for record in caplog.records]) == (
        [],
        [
            "Parallel limits: 'team' refuses: 40 of 40 in flight for team=research",
            "Parallel limits: 'team' refuses no more, after 5",
        ],
    )


async def test_end_of_refusals_is_told_by_the_clock(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody needs to ask for a limit once more for it to be said that it refuses no more."""
    with mock.patch("litellm_parallel_limits.logs.QUIET_SECONDS", 0.05):
        Log()(Refused(limit("team", 40), 40))
        await asyncio.sleep(0.2)
    assert caplog.records[-1].getMessage() == "Parallel limits: 'team' refuses no more, after 1"


def test_lines_have_their_facts_as_fields(caplog: pytest.LogCaptureFixture) -> None:
    """What a line says is there for programs as well."""
    lines(caplog, Refused(limit("team", 40), 40), FAILED)
    refuses, out = (vars(record) for record in caplog.records)
    assert refuses.items() >= {"event": "refuses", "limit": "team", "in_flight": 40, "capacity": 40}.items()
    assert refuses["scope"] == {"team": "research"}
    assert out.items() >= {"event": "store_out", "operation": "acquire"}.items()


def test_what_an_observed_limit_would_refuse_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """An observed limit writes the line that it would write if it were enforced."""
    watched, other = observed("watched", 2), limit("team", 9)
    told = lines(caplog, Admitted(replace(lease(watched, other), apart=True), (3, 1)))
    assert [text for _, text in told] == [
        "Parallel limits: 'watched' would refuse: 2 of 2 in flight for team=research"
    ]


def test_key_is_told_by_the_beginning_of_its_hash(caplog: pytest.LogCaptureFixture) -> None:
    """The log tells of keys what everybody may know."""
    full = Limit(Scope("api_key", (("key", "3fa9c1e5" + "0" * 56),)), 1)
    ((_, text),) = lines(caplog, Refused(full, 1))
    assert text.endswith("for key=3fa9c1e5")


def test_unread_records_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """That records cannot be read is said once for each kind of failure, without the failure's own words."""
    told = lines(caplog, *[LookUpFailed(TimeoutError("secret")), LookUpFailed(OSError("secret"))] * 3)
    assert [level for level, _ in told] == ["WARNING", "WARNING"]
    assert "secret" not in str(told)


def test_log_is_named_after_the_package(caplog: pytest.LogCaptureFixture) -> None:
    """The operator finds the lines under the package's name."""
    lines(caplog, FAILED)
    assert caplog.records[0].name == "litellm_parallel_limits"
