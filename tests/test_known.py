"""A request that says what one has said a moment ago asks for the same, and for nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from litellm.proxy._types import UserAPIKeyAuth

from litellm_parallel_limits.calls import NAMES, TABLES, caller, calls, key_name
from litellm_parallel_limits.known import KNOWN_SECONDS, LONGEST_NAMES, MOST_KNOWN, Asking, Known, said
from litellm_parallel_limits.look_ups import look_ups
from litellm_parallel_limits.sources import Call, Identity
from tests.clock import Clock

ASKING = Asking((Call(),), "key")
CHAT = "acompletion"


class Auth:
    """Anybody's auth object, which notes what is `read` of it."""

    def __init__(self, **fields: Any) -> None:
        self.fields = fields
        self.read: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        self.read.add(name)
        return self.fields.get(name)


class Incomparable:
    """What cannot be compared."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise TypeError("not to be compared")


@pytest.fixture
def clock() -> Clock:
    """A clock that a test advances."""
    return Clock()


@pytest.fixture
def known(clock: Clock) -> Known:
    """Nothing is known yet."""
    return Known(clock)


def auth(**fields: Any) -> Any:
    """Return LiteLLM's auth object, each table of it a new one."""
    return UserAPIKeyAuth(api_key="ab" * 32, **fields)


def data(model: object = "gpt-4o", **fields: object) -> dict[str, Any]:
    """Return a request."""
    return {"model": model, **fields}


def test_who_says_the_same_is_known_for_a_moment(known: Known, clock: Clock) -> None:
    """Equal fields are the same, of whichever objects; a while later they are read anew."""
    known.keep(said(auth(metadata={"a": {"b": 1}}), data(), CHAT), ASKING)
    again = said(auth(metadata={"a": {"b": 1}}), data(), CHAT)
    assert known.get(again) is ASKING
    clock.advance(KNOWN_SECONDS)
    assert known.get(again) is None


@pytest.mark.parametrize("name", [*NAMES, *TABLES])
def test_who_says_something_else_is_not_known(known: Known, name: str) -> None:
    """Every field counts."""
    known.keep(said(Auth(), data(), CHAT), ASKING)
    assert known.get(said(Auth(), data(), CHAT)) is ASKING
    assert known.get(said(Auth(**{name: {"a": 1} if name in TABLES else "b"}), data(), CHAT)) is None


@pytest.mark.parametrize(
    "other",
    [
        {"model": "gpt-4"},
        {"tags": ["a"]},
        {"metadata": {"tags": ["a"]}},
        {"litellm_metadata": {"tags": ["a"]}},
        {"proxy_server_request": {"body": {"model": "alias"}}},
    ],
    ids=str,
)
def test_who_asks_for_something_else_is_not_known(known: Known, other: dict[str, object]) -> None:
    """The model, the name that the client sent for it, and tags count; so does the kind of call."""
    known.keep(said(auth(), data(), CHAT), ASKING)
    assert known.get(said(auth(), {**data(), **other}, CHAT)) is None
    assert known.get(said(auth(), data(), "aresponses")) is None


def test_table_that_was_changed_in_place_is_another(known: Known) -> None:
    """Somebody's auth may give one object for many requests, and change it."""
    shared = {"model_max_parallel_requests": {"gpt-4o": 1}}
    known.keep(said(auth(metadata=shared), data(), CHAT), ASKING)
    shared["model_max_parallel_requests"]["gpt-4o"] = 2
    assert known.get(said(auth(metadata=shared), data(), CHAT)) is None


@pytest.mark.parametrize(
    ("of", "body"),
    [
        ({"metadata": {"a": Incomparable()}}, data()),
        ({}, data(["a", "b"])),
        ({}, data({"a": 1})),
        ({}, data("long" * LONGEST_NAMES)),
    ],
    ids=["incomparable", "list", "table", "long"],
)
def test_odd_things_are_read_each_time(known: Known, of: dict[str, Any], body: dict[str, Any]) -> None:
    """What cannot be told from others, or is too long to be kept, is no error."""
    told = said(Auth(**of), body, CHAT)
    known.keep(told, ASKING)
    assert known.get(told) is None


def test_strangers_fill_no_memory(known: Known) -> None:
    """However many there are."""
    for number in range(MOST_KNOWN + 10):
        known.keep(said(auth(), data(f"model-{number}"), CHAT), ASKING)
    assert len(known._known) <= MOST_KNOWN  # noqa: SLF001


def test_every_field_that_is_read_is_told() -> None:
    """Nothing decides over a call, or over the look-ups for it, that requests are not compared by."""
    reading = Auth(api_key="ab" * 32, end_user_id="customer", aliases={"gpt": "gpt-4o"})
    call = Call(caller(reading).identities, tags=(Identity("a"),))
    calls(reading, data(), CHAT, None)
    key_name(reading)
    every = ("user", "user metadata", "team", "membership budget", "organization budget", "customer budget")
    look_ups(reading, call, frozenset([*every, "tag budgets"]), None)  # type: ignore[list-item]
    assert reading.read <= {*NAMES, *TABLES}
