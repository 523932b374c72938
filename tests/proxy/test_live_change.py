"""A changed number holds from the next request, in the same count."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import httpx
import pytest
import yaml

from tests.conftest import StartProxy
from tests.rig.burst import Ask
from tests.rig.identities import admin_key, caller, key
from tests.rig.provider import Provider
from tests.rig.proxy import Proxy

pytestmark = pytest.mark.proxy

LIMIT = {"name": "per-user", "where": {"user": ["ann-*"]}, "by": ["user"], "max_parallel_requests": 1}
READS_ITS_CONFIG = "/get/config/callbacks"
"""A route of LiteLLM's at which it reads its YAML once more, as its synchronization with a database does."""


@pytest.fixture(scope="module")
def changing_proxy(start_proxy: StartProxy) -> Proxy:
    """A proxy whose configuration changes."""
    return start_proxy(litellm_settings={"parallel_limits": {"limits": [LIMIT]}})


def change(proxy: Proxy, section: dict[str, Any]) -> None:
    """Put another section into the proxy's YAML, and let LiteLLM read it."""
    path = proxy.server.log.parent / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config["litellm_settings"]["parallel_limits"] = section
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    headers = {"authorization": f"Bearer {admin_key()}"}
    httpx.get(proxy.url + READS_ITS_CONFIG, headers=headers, timeout=30, trust_env=False).raise_for_status()


async def hold(proxy: Proxy, provider: Provider, one: str, number: int = 1) -> list[asyncio.Task[Any]]:
    """Return so many requests of `one` that the provider holds."""
    held = [asyncio.create_task(Ask(one).send(proxy)) for _ in range(number)]
    await provider.holds(number, caller=caller(one))
    return held


async def test_a_number_in_the_yaml_holds_once_litellm_has_read_it(
    changing_proxy: Proxy, provider: Provider
) -> None:
    """A raised limit admits at once beside what is held; a lowered one refuses until enough have ended."""
    one = key(user_id=f"ann-{uuid4().hex}")
    held = await hold(changing_proxy, provider, one)
    assert (await Ask(one).send(changing_proxy)).status_code == 429
    change(changing_proxy, {"limits": [{**LIMIT, "max_parallel_requests": 2}]})
    held += [asyncio.create_task(Ask(one).send(changing_proxy))]
    await provider.holds(2, caller=caller(one))
    change(changing_proxy, {"limits": [LIMIT]})
    refused = await Ask(one).send(changing_proxy)
    assert "2 of 1 in flight" in refused.text
    provider.open_gate(caller(one))
    assert [answer.status_code for answer in await asyncio.gather(*held)] == [200, 200]
    assert (await Ask(one).send(changing_proxy)).status_code == 200
    await changing_proxy.settled()


async def test_a_mistake_in_the_yaml_keeps_what_held(changing_proxy: Proxy, provider: Provider) -> None:
    """Settings that cannot be used change nothing, and are told of in one line."""
    change(changing_proxy, {"limits": [{**LIMIT, "max_parallel_requests": "many"}]})
    one = key(user_id=f"ann-{uuid4().hex}")
    held = await hold(changing_proxy, provider, one)
    assert (await Ask(one).send(changing_proxy)).status_code == 429
    provider.open_gate(caller(one))
    await asyncio.gather(*held)
    told = changing_proxy.log().splitlines()
    mistakes = [line for line in told if "there is a mistake in the new ones" in line]
    assert len(mistakes) == 1
    assert "parallel_limits.limits[0].max_parallel_requests" in mistakes[0]
    change(changing_proxy, {"limits": [LIMIT]})


async def test_a_lowered_number_in_a_record_drains(changing_proxy: Proxy, provider: Provider) -> None:
    """Whoever is in flight stays; nobody is admitted before there is room by the new number."""
    user = uuid4().hex
    before = key(user_id=user, user_max_parallel_requests=3)
    after = key(user_id=user, user_max_parallel_requests=1)
    held = await hold(changing_proxy, provider, before, 2)
    assert "2 of 1 in flight" in (await Ask(after).send(changing_proxy)).text
    provider.open_gate(caller(before))
    await asyncio.gather(*held)
    held = await hold(changing_proxy, provider, after)
    assert (await Ask(before).send(changing_proxy)).status_code == 200
    provider.open_gate(caller(after))
    await asyncio.gather(*held)
    await changing_proxy.settled()
