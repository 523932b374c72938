"""The page of a real proxy shows what its provider holds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
import pytest_asyncio

from tests.conftest import StartProxy
from tests.page.browser import Visit
from tests.page.conftest import Visiting
from tests.rig.burst import GATED, Ask
from tests.rig.identities import admin_key, caller, key
from tests.rig.provider import Provider
from tests.rig.proxy import Proxy

pytestmark = [pytest.mark.proxy, pytest.mark.asyncio(loop_scope="session")]

LIMIT = "shown"
CAPACITY = 3
SCRIPT = "<script>alert('user')</script>"
IMAGE = "<img src=x onerror=alert('model')>"


@pytest.fixture(scope="module")
def real_proxy(start_proxy: StartProxy) -> Proxy:
    """A proxy with a limit for each model of each user."""
    limit = {"name": LIMIT, "by": ["user", "model"], "max_parallel_requests": CAPACITY}
    return start_proxy(litellm_settings={"parallel_limits": {"limits": [limit]}})


@pytest_asyncio.fixture(loop_scope="session")
async def url(real_proxy: Proxy) -> str:
    """Where the page is of a proxy in which nothing is in flight."""
    await real_proxy.settled()
    return f"{real_proxy.url}/parallel_limits/"


def row(user: str) -> str:
    """Return what selects the row of a user."""
    return f'.scope:has(.line[title*="user {user},"])'


@asynccontextmanager
async def held(provider: Provider, ask: Ask) -> AsyncIterator[list[asyncio.Task[httpx.Response]]]:
    """Yield a list for requests of the key in `ask`; the provider holds them until the context ends."""
    sent: list[asyncio.Task[httpx.Response]] = []
    try:
        yield sent
    finally:
        provider.open_gate(caller(ask.key))
        await asyncio.gather(*sent)


async def test_a_burst_is_seen_as_it_happens(
    visiting: Visiting, real_proxy: Proxy, provider: Provider, url: str
) -> None:
    """Bars rise with what the provider holds, refusals are counted, and then nothing is left in flight."""
    visit = await visiting(url, admin_key(), flying=False)
    await visit.reads("#empty", "Nothing is in flight.")
    ask = Ask(key(user_id="ann"))
    async with held(provider, ask) as sent:
        for number in range(1, CAPACITY + 1):
            sent.append(asyncio.create_task(ask.send(real_proxy)))
            await provider.holds(number, caller=caller(ask.key))
            await visit.reads(f"{row('ann')} .count", f"{number} of {CAPACITY}")
            await visit.reads("#in-flight", str(number))
        sent += [asyncio.create_task(ask.send(real_proxy)) for _ in range(2)]
        await visit.reads("#refused", "2")
        await visit.reads(f"{row('ann')} .refused b", "2")
        await visit.counts("#chart svg", 1)
    await visit.reads("#in-flight", "0")
    await visit.reads(f"{row('ann')} .count", f"0 of {CAPACITY}")
    assert sorted([(await one).status_code for one in sent]) == [200] * CAPACITY + [429] * 2


async def test_strangers_names_are_shown_and_do_nothing(
    visiting: Visiting, real_proxy: Proxy, provider: Provider, url: str
) -> None:
    """A user and a model that are markup are text on the page, and the proxy's policy is never broken."""
    ask = Ask(key(user_id=SCRIPT), f"{GATED}:{IMAGE}")
    visit = await visiting(url, admin_key(), flying=False)
    async with held(provider, ask) as sent:
        sent.append(asyncio.create_task(ask.send(real_proxy)))
        await visit.tells(".who", f"user {SCRIPT} model {GATED}:{IMAGE}")
        await visit.page.get_by_role("button", name=SCRIPT).click()
        await visit.reads(".holder .model", f"{GATED}:{IMAGE}")
        assert await visit.page.locator("img, main script").count() == 0


async def test_a_slot_released_by_hand_is_free_for_the_next(
    visiting: Visiting, real_proxy: Proxy, provider: Provider, url: str
) -> None:
    """The one who held it goes on, and one more is admitted."""
    ask = Ask(key(user_id="ben"))
    visit = await visiting(url, admin_key(), flying=False)
    async with held(provider, ask) as sent:
        sent += [asyncio.create_task(ask.send(real_proxy)) for _ in range(CAPACITY)]
        await visit.reads(f"{row('ben')} .count", f"{CAPACITY} of {CAPACITY}")
        await visit.page.click(f"{row('ben')} .open")
        await visit.page.click(f"{row('ben')} .release .first >> nth=0")
        await visit.page.click(f"{row('ben')} .release .yes:visible")
        await visit.reads(f"{row('ben')} .count", f"{CAPACITY - 1} of {CAPACITY}")
        await visit.tells("#said", "1 slot.")
        sent.append(asyncio.create_task(ask.send(real_proxy)))
        await provider.holds(CAPACITY + 1, caller=caller(ask.key))
    assert {(await one).status_code for one in sent} == {200}


async def test_a_key_sees_its_own_and_releases_nothing(
    visiting: Visiting, real_proxy: Proxy, provider: Provider, url: str
) -> None:
    """The scopes of others are not shown to it, nor is there a chart, nor a button to release."""
    asks = [Ask(key(user_id=user)) for user in ("cora", "dan")]
    async with held(provider, asks[0]) as mine, held(provider, asks[1]) as others:
        mine.append(asyncio.create_task(asks[0].send(real_proxy)))
        others.append(asyncio.create_task(asks[1].send(real_proxy)))
        await real_proxy.shows(len(asks), 10)
        visit = await visiting(url, asks[0].key, flying=False)
        await visit.reads(".scope .count", f"1 of {CAPACITY}")
        await visit.tells(".who", "user cora")
        await visit.page.click(".open")
        await visit.counts("#past, .release", 0)


async def test_a_key_that_the_proxy_does_not_know_is_told(visiting: Visiting, url: str) -> None:
    """The page asks for another, and keeps none; with a good one it shows what there is."""
    visit: Visit = await visiting(url, None, flying=False)
    await visit.enter("sk-nobody")
    await visit.tells("#why", "does not accept this key")
    stored = "() => [sessionStorage.length, localStorage.length, document.cookie]"
    assert await visit.page.evaluate(stored) == [0, 0, ""]
    await visit.enter(admin_key())
    await visit.counts("#board", 1)
    assert await visit.page.evaluate(stored) == [1, 0, ""]
