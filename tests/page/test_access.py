"""Whoever looks at the page can: on any screen, in any light, by keyboard, by ear."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.async_api import ViewportSize, expect

from tests.page.browser import DESKTOP, PHONE
from tests.page.conftest import Visiting
from tests.page.fake import Fake, scope, some_scopes

pytestmark = pytest.mark.asyncio(loop_scope="session")

NARROW: ViewportSize = {"width": 320, "height": 640}
LONG = "a-name-without-any-end-" * 40


async def test_nothing_is_wider_than_the_screen(visiting: Visiting, proxy: Fake) -> None:
    """Whatever is on the page, and open: there is no way to scroll sideways."""
    proxy.degraded = True
    proxy.scopes = [*some_scopes(), scope("z" * 63, 4096, 2048, user=LONG, team=LONG, models=[LONG])]
    visit = await visiting(proxy.url)
    await visit.counts(".scope", 7)
    for button in await visit.page.locator(".open").all():
        await button.click()
    await visit.page.locator(".release .first:visible >> nth=0").click()
    for viewport in (DESKTOP, PHONE, NARROW):
        await visit.page.set_viewport_size(viewport)
        await visit.shows("([width]) => innerWidth === width", viewport["width"])
        assert await visit.page.evaluate("() => document.documentElement.scrollWidth") == viewport["width"]
        assert await visit.page.eval_on_selector_all("main *", WIDE) == []


WIDE = """all => all
  .filter((one) => one.getBoundingClientRect().right > innerWidth + 1)
  .filter((one) => !one.closest(".who, .name, .sr, .unit, .heading"))
  .map((one) => one.className)"""
"""What reaches beyond the screen, and is not cut off on purpose."""

CONTRASTS = """() => {
  const rgb = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((one) => one / 255)
    .map((one) => one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4)
    .reduce((sum, one, at) => sum + one * [0.2126, 0.7152, 0.0722][at], 0);
  const ground = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const color = rgb(getComputedStyle(one).backgroundColor);
      if (color.length === 3 || color[3] === 1) return color;
    }
  };
  const hasText = (element) => [...element.childNodes].some((one) => one.nodeType === 3 && one.data.trim());
  const isRead = (element) => element.checkVisibility() && !element.matches(":disabled, script");
  return [...document.querySelectorAll("body *")]
    .filter((element) => hasText(element) && isRead(element))
    .map((element) => {
      const { color, fill } = getComputedStyle(element);
      const a = light(rgb(element instanceof SVGElement ? fill : color));
      const b = light(ground(element));
      return [element.outerHTML.slice(0, 60), (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
    })
    .filter(([, ratio]) => ratio < 4.5);
}"""
"""Text that has less than the contrast which WCAG's level AA asks for."""


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_text_has_contrast_in_light_and_dark(visiting: Visiting, proxy: Fake, scheme: str) -> None:
    """At least 4.5 to 1 for all text there is, whatever state it is in."""
    proxy.degraded = True
    proxy.scopes = [*some_scopes(), *(scope(f"limit-{number:03}", 1, 9) for number in range(100))]
    visit = await visiting(proxy.url, color_scheme=scheme)
    await visit.page.click(".scope >> nth=0")
    await visit.page.click(".release .first >> nth=0")
    assert await visit.page.evaluate(CONTRASTS) == []
    proxy.failing = 503
    await visit.counts("#unreached", 1)
    assert await visit.page.evaluate(CONTRASTS) == []


@pytest.mark.parametrize(("scheme", "other"), [("light", "dark"), ("dark", "light")])
async def test_it_is_light_or_dark_as_the_system_is_or_as_chosen(
    visiting: Visiting, proxy: Fake, scheme: str, other: str
) -> None:
    """The button turns it around, for this tab, also after a reload."""
    lightness = (
        "() => parseInt(getComputedStyle(document.documentElement).backgroundColor.match(/\\d+/)[0]) > 127"
    )
    visit = await visiting(proxy.url, color_scheme=scheme)
    assert await visit.page.evaluate(lightness) is (scheme == "light")
    await visit.page.get_by_role("button", name="Dark", pressed=scheme == "dark").click()
    await visit.page.reload()
    assert await visit.page.evaluate(lightness) is (other == "light")
    await expect(visit.page.get_by_role("button", name="Dark", pressed=other == "dark")).to_be_visible()


async def test_who_wants_no_motion_has_none(visiting: Visiting, proxy: Fake) -> None:
    """Nothing is animated, and bars jump."""
    proxy.scopes = some_scopes()
    visit = await visiting(proxy.url, reduced_motion="reduce")
    await visit.counts(".scope", 6)
    proxy.scopes[0] = scope("a-pool", 7, 8)
    await visit.tells(".count", "7 of 8")
    assert await visit.page.evaluate("() => document.getAnimations().length") == 0


NAMED = {"button", "combobox", "form", "img", "list", "meter", "navigation", "searchbox", "table", "textbox"}


def spoken(node: dict[str, Any]) -> tuple[str, str]:
    """Return what a screen reader says of a node: its role, and its name."""
    return node["role"]["value"], str(node.get("name", {}).get("value", ""))


async def test_a_screen_reader_is_told_what_everything_is(visiting: Visiting, proxy: Fake) -> None:
    """Controls, meters, lists and landmarks have names; there is one main, and one first heading."""
    proxy.scopes = [*some_scopes(), *(scope(f"limit-{number:03}", 1, 9) for number in range(100))]
    visit = await visiting(proxy.url)
    await visit.page.click(".scope >> nth=0")
    await visit.page.wait_for_selector("#chart svg")
    tree = [spoken(node) for node in await visit.tree()]
    assert [role for role, name in tree if role in NAMED and not name] == []
    assert ("button", "d-observed team research") in tree
    kinds = [role for role, _ in tree]
    assert {"main", "banner", "heading", "meter", "list", "listitem", "table", "row", "cell"} <= set(kinds)
    assert kinds.count("main") == 1
    assert await visit.page.locator("h1").count() == 1
    doubled = "all => all.map(one => one.id).filter((id, at, ids) => ids.indexOf(id) !== at)"
    assert await visit.page.eval_on_selector_all("[id]", doubled) == []
    assert await visit.page.get_attribute("html", "lang") == "en"


async def test_a_bar_is_a_meter(visiting: Visiting, proxy: Fake) -> None:
    """It has a least, a greatest and a present value, and words for it; one that is over stays within."""
    proxy.scopes = [scope("pool", 7, 5, team="research")]
    visit = await visiting(proxy.url)
    meter = visit.page.get_by_role("meter", name="In flight of pool, team research")
    for name, value in {
        "valuemin": "0",
        "valuenow": "7",
        "valuemax": "7",
        "valuetext": "7 of 5, 2 over",
    }.items():
        await expect(meter).to_have_attribute(f"aria-{name}", value)


async def test_the_whole_page_is_used_by_keyboard(visiting: Visiting, proxy: Fake) -> None:
    """Tab goes through every control in its order on the page, and each shows that it is there."""
    proxy.scopes = [scope("first", 3, 4), scope("second", 1, 4)]
    visit = await visiting(proxy.url)
    await visit.counts(".scope", 2)
    await visit.page.wait_for_selector("#chart svg")
    gone_through = []
    for _ in range(7):
        await visit.page.keyboard.press("Tab")
        gone_through.append(await visit.page.evaluate(FOCUSED))
    controls = ["theme", "forget", "limit", "filter", "sort", "first everybody", "second everybody"]
    assert gone_through == controls
    await visit.page.keyboard.press("Space")
    await visit.page.keyboard.press("Tab")
    assert (await visit.page.evaluate(FOCUSED)).startswith("Release lease")


FOCUSED = """() => {
  const one = document.activeElement;
  const outlines = [getComputedStyle(one), getComputedStyle(one, "::after")];
  if (!outlines.some((style) => style.outlineStyle === "solid")) return `no focus to be seen: ${one.id}`;
  return one.id || (one.getAttribute("aria-label") ?? one.innerText).replace(/\\s+/g, " ");
}"""
"""What has the focus, and that it shows."""


async def test_not_every_second_is_read_aloud(visiting: Visiting, proxy: Fake) -> None:
    """Only a summary is, now and then; numbers change in silence."""
    proxy.scopes = [scope("pool", 1, 9)]
    visit = await visiting(proxy.url)
    await visit.reads("#summary", "1 request in flight, 0 waiting, 0 refused in the last minute.")
    await visit.page.evaluate(LISTENING)
    for number in (2, 3):
        proxy.scopes = [scope("pool", number, 9)]
        await visit.reads(".count", f"{number} of 9")
    assert await visit.page.evaluate("() => window.spoken") == 0


LISTENING = """() => {
  window.spoken = 0;
  const changed = { childList: true, subtree: true, characterData: true };
  for (const one of document.querySelectorAll("[aria-live], [role=status], [role=alert]"))
    new MutationObserver(() => (window.spoken += 1)).observe(one, changed);
}"""
"""Count what is read aloud."""
