"""The page in a browser, and what the browser has to say against it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from playwright.async_api import Browser, BrowserContext, Page, ViewportSize, async_playwright

CHROMIUM = "/usr/bin/chromium"
"""Debian's: Playwright's own would have to be downloaded."""

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

DESKTOP: ViewportSize = {"width": 1280, "height": 800}
PHONE: ViewportSize = {"width": 390, "height": 844}
PATIENCE_SECONDS = 20

LOOKING_SECONDS = 0.02
FLYING_MS = 100
"""By how much time jumps in the page between two looks, beside going on."""

SEEN = """(where) => [...document.querySelectorAll(where)]
  .filter((one) => one.checkVisibility())
  .map((one) => (one.innerText ?? one.textContent).replace(/\\s+/g, " ").trim())"""
"""The texts of the elements that are seen."""

VIOLATIONS = """
addEventListener("securitypolicyviolation", (event) =>
  console.error(`violates ${event.violatedDirective}: ${event.blockedURI}`));
"""

EXPECTED = "Failed to load resource"
"""What Chromium says of every answer that is an error; those are what tests are of."""


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Yield a browser, as long as the context lasts."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        await browser.close()


@dataclass
class Visit:
    """A tab with the page, and `complaints`: errors, violations of the policy, dialogs, other hosts.

    If time is `flying`, then in the page it does while a test waits.
    """

    page: Page
    flying: bool = True
    complaints: list[str] = field(default_factory=list)

    @classmethod
    async def begin(cls, context: BrowserContext, url: str, key: str | None, *, flying: bool = True) -> Visit:
        """Open the page at `url` in a tab of its own, which may have been given a `key` before."""
        if key:
            await context.add_init_script(f"sessionStorage.setItem('parallel_limits_key', '{key}')")
        await context.add_init_script(VIOLATIONS)
        context.set_default_timeout(PATIENCE_SECONDS * 1000)
        visit = cls(await context.new_page(), flying)
        visit._listen(urlsplit(url).netloc)
        if flying:
            await visit.page.clock.install()
        await visit.page.goto(url)
        return visit

    def _listen(self, host: str) -> None:
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        self.page.on("console", lambda message: self._hear(message.type, message.text))
        self.page.on("request", lambda request: self._see(request.url, host))

    def _hear(self, kind: str, text: str) -> None:
        if kind in {"error", "warning"} and not text.startswith(EXPECTED):
            self.complaints.append(text)

    def _see(self, url: str, host: str) -> None:
        if urlsplit(url).netloc != host:
            self.complaints.append(f"asks {url}")

    async def enter(self, key: str) -> None:
        """Give the page a key."""
        await self.page.fill("#key", key)
        await self.page.click("#gate button")

    async def shows(self, function: str, *arguments: object) -> None:
        """Return once this JavaScript is true. Raises AssertionError if it never is.

        A function, not an expression: the page's policy forbids to evaluate one.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not await self.page.evaluate(function, [*arguments]):
            if time.monotonic() > deadline:
                raise AssertionError(f"never so: {function} {arguments}")
            await self._pause()

    async def _pause(self) -> None:
        if self.flying:
            await self.page.clock.run_for(FLYING_MS)
        else:
            await asyncio.sleep(LOOKING_SECONDS)

    async def reads(self, selector: str, *texts: str) -> None:
        """Return once these elements that are seen read just so."""
        await self.shows(f"([where, texts]) => String(({SEEN})(where)) === String(texts)", selector, texts)

    async def tells(self, selector: str, text: str) -> None:
        """Return once an element that is seen reads something with this in it."""
        await self.shows(f"([where, text]) => ({SEEN})(where).join().includes(text)", selector, text)

    async def counts(self, selector: str, number: int) -> None:
        """Return once so many of these elements are seen."""
        await self.shows(f"([where, number]) => ({SEEN})(where).length === number", selector, number)

    async def tree(self) -> list[dict[str, Any]]:
        """Return what a screen reader is given: the nodes of Chromium's accessibility tree."""
        session = await self.page.context.new_cdp_session(self.page)
        nodes: list[dict[str, Any]] = (await session.send("Accessibility.getFullAXTree"))["nodes"]
        return [node for node in nodes if not node["ignored"]]
