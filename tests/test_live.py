"""Limits change where LiteLLM reads its configuration anew, and stay where there is a mistake in it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest

from litellm_parallel_limits.limits import Scope
from litellm_parallel_limits.live import LivePolicy
from litellm_parallel_limits.policy import Policy
from litellm_parallel_limits.settings import read
from litellm_parallel_limits.sources import Call, Identity

CALL = Call({"key": Identity("k1")}, (), {"key metadata": {"max_parallel_requests": "many"}})


def section(number: object = 1, **others: object) -> dict[str, Any]:
    """Return settings with one limit of this number."""
    return {"limits": [{"name": "ours", "max_parallel_requests": number}], **others}


class Config(dict[str, Any]):
    """LiteLLM's configuration, which counts how often it is looked into."""

    looks = 0

    def get(self, key: str, default: Any = None) -> Any:
        """Return an entry."""
        self.looks += 1
        return super().get(key, default)

    def __deepcopy__(self, _: object) -> Config:
        raise AssertionError("copied")


def config(of: object) -> Config:
    """Return a configuration with our section."""
    return Config(litellm_settings={"parallel_limits": of})


class Proxy:
    """A proxy that reads its configuration again and again."""

    def __init__(self, of: object, environment: Mapping[str, str] | None = None) -> None:
        self.config: Any = config(of)
        self.told: list[str] = []
        environment = environment or {}
        self.live = LivePolicy(read(of, environment), lambda: self.config, environment, self.told.append)

    def numbers(self) -> dict[str, int]:
        """Return the number of each limit that a call meets now."""
        return {limit.scope.limit: limit.capacity for limit in self.live().limits(Call())}


Log = list[logging.LogRecord]


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    """Return what is logged."""
    records: Log = []
    handler = logging.Handler()
    monkeypatch.setattr(handler, "emit", records.append)
    monkeypatch.setattr(logging.getLogger("litellm_parallel_limits"), "handlers", [handler])
    return records


def lines(log: Log, level: str) -> list[str]:
    """Return the lines of this level."""
    return [record.getMessage() for record in log if record.levelname == level]


def test_policy_is_that_of_the_start(log: Log) -> None:
    """Until LiteLLM reads something else the limits are those it started with, and nothing is said."""
    proxy = Proxy(section(3))
    assert proxy.numbers() == {"ours": 3}
    assert proxy.live() is proxy.live()
    assert log == []


def test_same_settings_read_again_change_nothing(log: Log) -> None:
    """Another object that says the same is no change: the policy is the very same, and nothing is said."""
    proxy = Proxy(section(3))
    before = proxy.live()
    for same in (config(section(3)), MappingProxyType(config(section("3")))):
        proxy.config = same
        assert proxy.live() is before
    assert log == []


def test_new_number_holds_from_the_next_call(log: Log) -> None:
    """A number that LiteLLM has read anew holds at once, in the scope that there was; one line says so."""
    proxy = Proxy(section(3))
    (before,) = proxy.live().limits(Call())
    proxy.config = config(section(5))
    (after,) = proxy.live().limits(Call())
    assert (before.scope, before.capacity) == (Scope("ours"), 3)
    assert (after.scope, after.capacity) == (before.scope, 5)
    assert len(lines(log, "WARNING")) == 1
    assert "start" not in lines(log, "WARNING")[0]


def test_limits_come_and_go(log: Log) -> None:
    """A limit may be added, and taken away with the whole section."""
    proxy = Proxy(None)
    assert proxy.numbers() == {}
    proxy.config = config(section(5))
    assert proxy.numbers() == {"ours": 5}
    for nothing in ({}, {"litellm_settings": None}, {"litellm_settings": {"parallel_limits": None}}):
        proxy.config = config(section(5))
        assert proxy.numbers() == {"ours": 5}
        proxy.config = nothing
        assert proxy.numbers() == {}


def test_mode_and_failure_hold_at_once(log: Log) -> None:
    """The section's mode and its behaviour in an outage change with the numbers."""
    proxy = Proxy(section())
    proxy.config = config(section(mode="observe", on_store_failure="deny"))
    (limit,) = proxy.live().limits(Call())
    assert (limit.mode, limit.on_store_failure) == ("observe", "deny")
    assert not any("start" in line for line in lines(log, "WARNING"))


@pytest.mark.parametrize(
    "mistake",
    [
        section(-1),
        section("many"),
        {"mode": "log"},
        {"lease_tll": 30},
        [],
        "text",
        {"limits": [{"name": "user", "max_parallel_requests": 1}]},
    ],
)
def test_mistake_leaves_the_policy_as_it_was(mistake: object, log: Log) -> None:
    """After a mistake the limits stay, and one line says what is wrong, however many requests come."""
    proxy = Proxy(section(3))
    before = proxy.live()
    proxy.config = config(mistake)
    for _ in range(3):
        assert proxy.live() is before
    (line,) = lines(log, "ERROR")
    assert "parallel_limits" in line
    proxy.config = config(section(4))
    assert proxy.numbers() == {"ours": 4}


def test_mistake_read_again_is_told_once(log: Log) -> None:
    """LiteLLM reads its configuration every few seconds: a mistake that stays in it is told once."""
    proxy = Proxy(section(3))
    for _ in range(3):
        proxy.config = config(section(-1))
        assert proxy.numbers() == {"ours": 3}
    assert len(lines(log, "ERROR")) == 1


@pytest.mark.parametrize(
    "later",
    [
        {"store": "memory"},
        {"lease_ttl": 60},
        {"store_timeout_ms": 100},
        {"host_path": "x"},
        {"enabled": False},
    ],
)
def test_what_needs_a_start_is_named(later: dict[str, object], log: Log) -> None:
    """Of a setting that holds from the next start only, one line says so; the limits hold at once."""
    proxy = Proxy(section(3))
    proxy.config = config(section(4, **later))
    assert proxy.numbers() == {"ours": 4}
    (line,) = [line for line in lines(log, "WARNING") if "start" in line]
    assert all(name in line for name in later)
    assert "limits," not in line
    assert proxy.numbers() == {"ours": 4}
    assert len([line for line in lines(log, "WARNING") if "start" in line]) == 1


def test_environment_still_comes_before_the_file(log: Log) -> None:
    """What the environment overrides stays so, whatever is read."""
    proxy = Proxy(section(), {"LITELLM_PARALLEL_LIMITS_MODE": "observe"})
    proxy.config = config(section(2, mode="enforce"))
    assert [(limit.capacity, limit.mode) for limit in proxy.live().limits(Call())] == [(2, "observe")]


def test_new_policy_tells_of_bad_values_as_the_old_one(log: Log) -> None:
    """Whoever is told of bad values in records is told of them by every policy."""
    proxy = Proxy(section())
    proxy.live().limits(CALL)
    proxy.config = config(section(2))
    proxy.live().limits(CALL)
    assert len(proxy.told) == 2


def test_request_costs_no_copy_and_no_reading(log: Log) -> None:
    """The configuration is looked into when LiteLLM has read it anew, and never copied."""
    proxy = Proxy(section(3))
    proxy.live()
    looks = proxy.config.looks
    assert looks <= 2
    for _ in range(1_000):
        proxy.live()
    assert proxy.config.looks == looks


@pytest.mark.parametrize("odd", [{"litellm_settings": []}, {"litellm_settings": "x"}, {}, {1: 2}, None])
def test_odd_configuration_is_survived(odd: object, log: Log) -> None:
    """Whatever LiteLLM calls its configuration, a request gets a policy."""
    proxy = Proxy(section(3))
    proxy.config = odd
    assert isinstance(proxy.live(), Policy)
