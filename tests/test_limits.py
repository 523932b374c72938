"""What a number means, and what a scope is called."""

from __future__ import annotations

import math
from typing import get_args

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from litellm_parallel_limits.limits import LONGEST_IDENTITY, MOST_PARALLEL_REQUESTS, Scope, whole_number
from litellm_parallel_limits.sources import Dimension
from tests.json_values import json_values

names = st.from_regex(r"[a-z][a-z0-9_-]{0,10}", fullmatch=True)
identities = st.text() | st.characters(categories=["Cs"]) | st.text("ab=;,*%:{}", max_size=6)
scopes = st.builds(
    Scope,
    names,
    st.lists(st.tuples(st.sampled_from(get_args(Dimension)), identities), max_size=3).map(tuple),
)


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (0, 0),
        (1, 1),
        (2.0, 2),
        ("5", 5),
        (" 7 ", 7),
        ("007", 7),
        ("0" * 20 + "7", 7),
        ("0" * 20, 0),
        (10**30, MOST_PARALLEL_REQUESTS),
        ("9" * 30, MOST_PARALLEL_REQUESTS),
        ("9" * 10_000, MOST_PARALLEL_REQUESTS),
        (1e300, MOST_PARALLEL_REQUESTS),
    ],
)
def test_whole_numbers_are_numbers(value: object, number: int) -> None:
    """A whole number from 0 on counts, also as text, and one too large as the largest."""
    assert whole_number(value) == number


def test_null_is_no_limit() -> None:
    """Null sets no limit: it is not 0, which blocks."""
    assert whole_number(None) is None


@pytest.mark.parametrize(
    "value",
    [
        -1,
        "-1",
        True,
        False,
        1.5,
        "1.5",
        math.nan,
        math.inf,
        "",
        " ",
        "x",
        "1e3",
        "+1",
        "1_0",
        "٣",
        "²",
        [],
        {},
        b"1",
    ],
)
def test_anything_else_is_no_number(value: object) -> None:
    """Negative numbers, booleans, fractions and other text are mistakes."""
    with pytest.raises(ValueError, match="whole number from 0 on"):
        whole_number(value)


@given(json_values)
@settings(deadline=None)
def test_any_value_is_a_number_or_a_mistake(value: object) -> None:
    """Whatever a record holds is a number in range, no limit, or a ValueError."""
    try:
        number = whole_number(value)
    except ValueError:
        return
    assert number is None or 0 <= number <= MOST_PARALLEL_REQUESTS


@given(scopes, scopes)
@settings(deadline=None)
def test_scopes_have_keys_of_their_own(one: Scope, other: Scope) -> None:
    """No two scopes have the same key."""
    assert (one.key == other.key) == (one == other)


@given(st.text(min_size=LONGEST_IDENTITY), st.text(min_size=LONGEST_IDENTITY))
@settings(deadline=None)
def test_long_identities_have_keys_of_their_own(one: str, other: str) -> None:
    """Scopes of identities too long for a key have different keys as well, and none is long."""
    assume(one != other)
    keys = {Scope("user", (("user", identity),)).key for identity in (one, other)}
    assert len(keys) == 2
    assert all(len(key) < 2 * LONGEST_IDENTITY for key in keys)


def test_hash_of_a_long_identity_cannot_be_forged() -> None:
    """No identity is called what a long one's key calls it."""
    long = Scope("user", (("user", "x" * 10_000),))
    assert Scope.parse(long.key) == long
    forged = Scope("user", Scope.parse(long.key).identities)
    assert forged != long
    assert forged.key != long.key


@given(scopes)
@settings(deadline=None)
def test_key_tells_its_scope(scope: Scope) -> None:
    """A scope is read back from its key, but for identities too long to stand there."""
    assume("=*" not in scope.key)
    assert Scope.parse(scope.key).identities == scope.identities


@given(scopes)
@settings(deadline=None)
def test_key_is_plain(scope: Scope) -> None:
    """A key has no character with a meaning of its own to Redis, a terminal or a log."""
    assert scope.key.isascii()
    assert scope.key.isprintable()
    assert not set(scope.key) & set(" {}:\"'\\")
