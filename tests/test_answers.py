"""What a client is told."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from litellm_parallel_limits.answers import (
    Refusal,
    admitted_headers,
    refusal,
    shown,
    shown_scope,
    unavailable,
)
from litellm_parallel_limits.limits import Admitted, Limit, RefusalReason, Refused, Scope
from tests.samples import lease, limit, observed

HASH = "3fa9c1e5" + "0" * 56
MODEL_PER_KEY = Scope("model_per_key", (("key", HASH), ("model", "gpt-4")))


def told(
    scope: Scope = MODEL_PER_KEY,
    *,
    in_flight: int = 2,
    capacity: int = 2,
    reason: RefusalReason = "limit",
    key_name: str = "3fa9c1e5",
    held_seconds: float | None = None,
    luck: float = 0.0,
) -> Refusal:
    """Return what a client is told that a limit refused."""
    refused = Refused(Limit(scope, capacity), in_flight, reason)
    return refusal(refused, key_name=key_name, held_seconds=held_seconds, uniform=lambda: luck)


def test_message_explains_itself() -> None:
    """The message names the limit, its scope, the number in flight, the limit, and when to come back."""
    assert told(held_seconds=6.0).message == (
        "Parallel request limit 'model_per_key' is full: 2 of 2 in flight for model=gpt-4 (key 3fa9c1e5). "
        "Retry after 3 s."
    )


def test_observed_limits_that_would_have_refused_are_named() -> None:
    """The answer to a request that only an observed limit was too small for says so."""
    held = replace(lease(observed("watched", 2), observed("roomy", 9), limit("team", 9)), apart=True)
    headers = admitted_headers(Admitted(held, (3, 1, 1)))
    assert headers["x-parallel-limit-would-refuse"] == "watched"
    assert headers["x-ratelimit-watched-remaining-max_parallel_requests"] == "0"


@pytest.mark.parametrize(
    ("scope", "part"),
    [
        (Scope("all"), "is full: 2 of 2 in flight. Retry"),
        (Scope("team", (("team", "research"),)), "in flight for team=research. Retry"),
        (Scope("api_key", (("key", HASH),)), "in flight (key 3fa9c1e5). Retry"),
        (Scope("x", (("user", "u1"), ("team", "t1"))), "in flight for user=u1, team=t1. Retry"),
    ],
)
def test_message_names_the_scope(scope: Scope, part: str) -> None:
    """The message names what the limit counts by, a key by its public name."""
    assert part in told(scope).message


def test_message_names_a_key_by_what_it_is_called() -> None:
    """A key is called by its name in public, and by no digit of its hash beyond that."""
    message = told(key_name="ci-key").message
    assert "(key ci-key)" in message
    assert HASH[:8] not in message


def test_message_tells_of_the_truth_above_a_lowered_limit() -> None:
    """The number in flight may be above a limit that was lowered, and is told as it is."""
    assert "is full: 5 of 2 in flight" in told(in_flight=5).message


def test_message_tells_of_an_outage() -> None:
    """A request refused within a worker's share is told why the number is so small."""
    message = told(reason="store_unavailable").message
    assert (
        "2 of 2 in flight in this worker (its share while the store is out or recovers) for model=gpt-4"
        in message
    )


def test_refusal_is_a_429_of_the_right_kind() -> None:
    """The answer says which limit refused, and why, where clients and proxies look for it."""
    answer = told()
    assert answer.status == 429
    assert answer.headers == {
        "retry-after": "1",
        "retry-after-ms": "1000",
        "rate_limit_type": "max_parallel_requests",
        "x-parallel-limit-name": "model_per_key",
        "x-parallel-limit-reason": "limit",
    }


def test_refusal_in_an_outage_has_its_reason() -> None:
    """A refusal made without the store says so."""
    assert told(reason="store_unavailable").headers["x-parallel-limit-reason"] == "store_unavailable"


def test_block_is_not_worth_a_retry() -> None:
    """A limit of 0 is nothing to wait for: a minute, and the SDKs are told not to try."""
    answer = told(capacity=0, in_flight=0)
    assert answer.headers["retry-after"] == "60"
    assert answer.headers["x-should-retry"] == "false"
    assert answer.message.endswith("0 of 0 in flight for model=gpt-4 (key 3fa9c1e5). Retry after 60 s.")


@pytest.mark.parametrize(
    ("held_seconds", "capacity", "seconds"),
    [(None, 2, 1), (6.0, 2, 3), (6.1, 2, 4), (0.001, 2, 1), (1e9, 2, 60), (30.0, 100, 1), (45.0, 1, 45)],
)
def test_retry_after_is_when_a_slot_comes_free(
    held_seconds: float | None, capacity: int, seconds: int
) -> None:
    """A slot comes free every hold time divided by the limit: whole seconds, 1 to 60; 1 where unknown."""
    answer = told(held_seconds=held_seconds, capacity=capacity)
    assert answer.headers["retry-after"] == str(seconds)
    assert answer.message.endswith(f"Retry after {seconds} s.")


@given(
    st.none() | st.floats(0, allow_infinity=False),
    st.integers(0, 2**53 - 1),
    st.floats(0, 1, exclude_max=True),
)
@settings(deadline=None)
def test_retry_after_is_within_bounds(held_seconds: float | None, capacity: int, luck: float) -> None:
    """Whatever was measured, the wait is 1 to 60 whole seconds, and its milliseconds are no longer."""
    headers = told(held_seconds=held_seconds, capacity=capacity, luck=luck).headers
    assert 1 <= int(headers["retry-after"]) <= 60
    assert 100 <= int(headers["retry-after-ms"]) <= int(headers["retry-after"]) * 1000


def test_waits_are_spread() -> None:
    """Clients refused together return up to a quarter later than the first of them."""
    waits = [int(told(held_seconds=20.0, luck=luck).headers["retry-after-ms"]) for luck in (0, 0.5, 1)]
    assert waits == [10_000, 11_250, 12_500]


def test_store_out_and_denied_is_a_503() -> None:
    """Where a limit denies what it cannot check, the answer is a 503 to be tried again soon."""
    answer = unavailable("team", "cannot be checked")
    assert (answer.status, answer.message) == (503, "cannot be checked")
    assert answer.headers["retry-after"] == "1"
    assert answer.headers["x-parallel-limit-reason"] == "store_unavailable"
    assert answer.headers["x-parallel-limit-name"] == "team"


def test_admission_tells_number_and_room() -> None:
    """An admitted answer carries, for each limit met, its number and the room that is left."""
    admitted = Admitted(lease(limit("user", 5), limit("team", 3)), (2, 3))
    assert admitted_headers(admitted) == {
        "x-ratelimit-user-limit-max_parallel_requests": "5",
        "x-ratelimit-user-remaining-max_parallel_requests": "3",
        "x-ratelimit-team-limit-max_parallel_requests": "3",
        "x-ratelimit-team-remaining-max_parallel_requests": "0",
    }


def test_room_is_never_negative() -> None:
    """Above an observed or lowered limit there is no room left."""
    headers = admitted_headers(Admitted(lease(limit("user", 1)), (4,)))
    assert headers["x-ratelimit-user-remaining-max_parallel_requests"] == "0"


@pytest.mark.parametrize("counts", [(2, 1), (1, 2)])
def test_least_room_is_told_of_several_scopes(counts: tuple[int, int]) -> None:
    """Where a call met several scopes of one limit, the one with less room is told."""
    headers = admitted_headers(Admitted(lease(limit(capacity=9, of="a"), limit(capacity=9, of="b")), counts))
    assert headers["x-ratelimit-team-remaining-max_parallel_requests"] == "7"


@given(st.text() | st.characters(categories=["Cs"]))
@settings(deadline=None)
def test_shown_is_one_short_printable_line(text: str) -> None:
    """Whatever a client calls itself is shown on one line that any log, terminal or socket can take."""
    line = shown(text)
    assert line.isprintable()
    assert len(line) <= 64
    line.encode()


def test_shown_is_as_it_was_where_it_can_be() -> None:
    """A plain name is shown as it is, a long one by its beginning."""
    assert shown("Grüße, 世界") == "Grüße, 世界"
    assert shown("x" * 64) == "x" * 64
    assert shown("x" * 65) == "x" * 63 + "…"
    assert (
        shown("a\r\nb\0\u202e")
        == "a\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}b" + 2 * "\N{REPLACEMENT CHARACTER}"
    )


@given(st.text(), st.text())
@settings(deadline=None)
def test_hostile_names_make_no_hostile_answer(identity: str, key_name: str) -> None:
    """Identities of a client's invention reach the message made harmless, and no header at all."""
    answer = told(Scope("x", (("key", HASH), ("end_user", identity))), key_name=key_name)
    assert answer.message.isprintable()
    assert len(answer.message) < 400
    for name, value in answer.headers.items():
        assert f"{name}{value}".isascii()
        assert f"{name}{value}".isprintable()


def test_scope_is_shown_without_the_whole_hash() -> None:
    """A scope is shown with the beginning of a key's hash, and its other identities cut."""
    scope = Scope("x", (("key", HASH), ("user", "u" * 99), ("model", "gpt-4")))
    assert shown_scope(scope) == {"key": "3fa9c1e5", "user": "u" * 63 + "…", "model": "gpt-4"}
