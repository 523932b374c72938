"""One browser for all tests of the page, and a fake proxy to look at."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from tests.page.browser import DESKTOP, Visit, chromium
from tests.page.fake import ADMIN, Fake, fake

Visiting = Callable[..., Awaitable[Visit]]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """The browser."""
    async with chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
def running_fake() -> Iterator[Fake]:
    """A fake proxy, as the last test left it."""
    with fake() as running:
        yield running


@pytest.fixture
def proxy(running_fake: Fake) -> Fake:
    """A fake proxy in which nothing is in flight."""
    running_fake.reset()
    return running_fake


@pytest_asyncio.fixture(loop_scope="session")
async def visiting(browser: Browser) -> AsyncIterator[Visiting]:
    """Return a function that opens a tab. The browser has nothing to say against any, or the test fails."""
    visits = []

    async def visit(url: str, key: str | None = ADMIN, *, flying: bool = True, **options: Any) -> Visit:
        context = await browser.new_context(**{"viewport": DESKTOP, **options})
        visits.append(await Visit.begin(context, url, key, flying=flying))
        if key:
            await visits[-1].counts("#board", 1)
        return visits[-1]

    yield visit
    for one in visits:
        await one.page.context.close()
    assert [complaint for one in visits for complaint in one.complaints] == []
