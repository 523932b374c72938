"""The configuration is read whole or the proxy does not start."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import StartProxy
from tests.rig.burst import Ask
from tests.rig.config import config
from tests.rig.identities import admin_key, key
from tests.rig.process import StartError
from tests.rig.proxy import Proxy

pytestmark = pytest.mark.proxy

ROOM = "x-ratelimit-api_key-limit-max_parallel_requests"


def settings(**section: object) -> dict[str, object]:
    """Return a configuration of a proxy that needs no provider, with the plugin's section."""
    return config("http://127.0.0.1:9", litellm_settings={"parallel_limits": section})


def test_a_mistake_stops_the_start_and_names_the_entry(folder: Callable[[str], Path]) -> None:
    """Every mistake is told with the path of its entry and what is allowed there."""
    limits = [{"name": "fine", "max_parallel_requests": 1}, {"name": "Bad Name", "max_parallel_requests": -1}]
    with pytest.raises(StartError) as failed:
        Proxy.start(folder("mistake"), settings(limits=limits, lease_tll=10, store="sqlite"))
    told = str(failed.value)
    assert "parallel_limits.limits[1].name: String should match pattern" in told
    assert "parallel_limits.limits[1].max_parallel_requests: not a whole number from 0 on; got -1" in told
    assert "parallel_limits.lease_tll: unknown; allowed: enabled, mode, store, lease_ttl" in told
    assert "parallel_limits.store: Input should be 'auto', 'memory', 'host' or 'redis'; got 'sqlite'" in told


def test_a_redis_that_litellm_does_not_have_stops_the_start(folder: Callable[[str], Path]) -> None:
    """`store: redis` without a Redis in LiteLLM's own settings is a mistake."""
    with pytest.raises(StartError, match=r"parallel_limits\.store: redis, but LiteLLM has no Redis"):
        Proxy.start(folder("no-redis"), settings(store="redis"))


def test_a_section_in_the_wrong_place_stops_the_start(folder: Callable[[str], Path]) -> None:
    """Settings that stand beside `litellm_settings`, where LiteLLM would ignore them, are a mistake."""
    with pytest.raises(StartError, match=r"parallel_limits: stands at the top .* below litellm_settings"):
        Proxy.start(folder("misplaced"), settings() | {"parallel_limits": {"mode": "observe"}})


def test_a_file_that_cannot_be_used_stops_the_start(folder: Callable[[str], Path]) -> None:
    """A `host_path` that is no place for leases is a mistake."""
    place = folder("no-file")
    with pytest.raises(StartError, match=r"parallel_limits\.host_path: .*allowed: a file on this machine"):
        Proxy.start(folder("proxy"), settings(store="host", host_path=str(place)))


async def test_switched_off_it_is_not_there(folder: Callable[[str], Path], start_proxy: StartProxy) -> None:
    """With `enabled: false` nothing is limited, nothing is announced, and there is no status."""
    proxy = start_proxy(litellm_settings={"parallel_limits": {"enabled": False}})
    answer = await Ask(key(metadata={"max_parallel_requests": 0}), "openai/ok").send(proxy)
    assert answer.status_code == 200
    assert ROOM not in answer.headers
    async with proxy.http(admin_key()) as admin:
        assert (await admin.get("/parallel_limits/status")).status_code == 404


async def test_a_shim_beside_the_config_is_enough(start_proxy: StartProxy) -> None:
    """Where LiteLLM loads callbacks only from a file, a file of two lines hands it the plugin."""
    proxy = start_proxy(callbacks=["parallel_limits_shim.proxy_handler_instance"])
    answer = await Ask(key(metadata={"max_parallel_requests": 7}), "openai/ok").send(proxy)
    assert answer.headers[ROOM] == "7"
