"""What the page shows, and how it is used, whatever the proxy answers."""

from __future__ import annotations

from functools import partial

import pytest
from playwright.async_api import expect

from tests.page.conftest import Visiting
from tests.page.fake import ADMIN, GUEST, VIEWER, Fake, scope, some_scopes
from tests.rig.polling import until
from tests.rig.process import free_port

pytestmark = pytest.mark.asyncio(loop_scope="session")

STILL_MS = 4000
"""The list keeps its order for so long after somebody was in it."""

MARKUP = "<img src=x onerror=alert(1)>"
LONG = "a-name-without-any-end-" * 40
BIDI = "\u202egnp.exe"
HALF = "half \ud83d of a pair"

KEPT = """() => ({
  session: Object.values(sessionStorage),
  elsewhere: localStorage.length + document.cookie,
  page: document.documentElement.outerHTML + document.querySelector("#key").value + location.href,
})"""
"""Where a key could be."""


async def test_the_key_is_asked_for_once_and_kept_in_the_tab_only(visiting: Visiting, proxy: Fake) -> None:
    """A reload does not ask again; nothing but the tab's own storage has the key, until it is forgotten."""
    visit = await visiting(proxy.url, None)
    field = visit.page.get_by_label("API key")
    await expect(field).to_have_attribute("type", "password")
    await expect(field).to_have_attribute("autocomplete", "off")
    await visit.enter(ADMIN)
    await visit.counts("#board", 1)
    await visit.page.reload()
    await visit.counts("#board", 1)
    found = await visit.page.evaluate(KEPT)
    assert (found["session"], found["elsewhere"]) == ([ADMIN], "0")
    assert ADMIN not in found["page"]
    await visit.page.click("#forget")
    await expect(field).to_be_focused()
    assert (await visit.page.evaluate(KEPT))["session"] == []
    await visit.page.reload()
    await visit.counts("#gate", 1)


async def test_a_wrong_key_is_told(visiting: Visiting, proxy: Fake) -> None:
    """The page asks again, says why, and has forgotten the key."""
    visit = await visiting(proxy.url, None)
    for given, why in {"sk-wrong": "does not accept this key (401)", "two words": "is not a key"}.items():
        await visit.enter(given)
        await visit.tells("#why", why)
        await visit.counts("#board", 0)
        assert await visit.page.evaluate("() => sessionStorage.length") == 0


@pytest.mark.parametrize(("code", "why"), [(401, "does not accept"), (403, "may not see")])
async def test_a_key_that_may_no_longer_is_asked_for_again(
    visiting: Visiting, proxy: Fake, code: int, why: str
) -> None:
    """When the proxy takes its permission away, nothing of what was shown is left."""
    proxy.scopes = some_scopes()
    visit = await visiting(proxy.url)
    await visit.counts(".scope", 6)
    proxy.failing = code
    await visit.tells("#why", why)
    assert await visit.page.locator(".scope").count() == 0


async def test_the_head_tells_the_totals(visiting: Visiting, proxy: Fake) -> None:
    """Requests in flight, waiting, refused in the last minute, and the store with how it is."""
    proxy.scopes = some_scopes()
    visit = await visiting(proxy.url)
    await visit.reads(".figures b", "21", "3", "35", "redis")
    await visit.reads("#store-note", "4 workers · 0.41 ms")


async def test_each_scope_tells_how_full_it_is(visiting: Visiting, proxy: Fake) -> None:
    """In words and by a bar; what is over the limit is shown, a limit that is not known is not made up."""
    proxy.scopes = some_scopes()
    visit = await visiting(proxy.url)
    await visit.page.select_option("#sort", "name")
    await visit.reads(".count", "2 of 8", "2 of 2", "9 of 10", "7 of 5 2 over", "0 of 0 blocked", "1 of ?")
    await visit.reads(".waiting b", "3", "0", "0", "0", "0", "0")
    await visit.reads(".refused b", "0", "31", "0", "0", "4", "0")
    states = "rows => rows.map(row => row.dataset.state)"
    assert await visit.page.eval_on_selector_all(".scope", states) == ["", "full", "near", "over", "full", ""]
    parts = "bars => bars.map(bar => bar.style.getPropertyValue('--part')).slice(0, 3)"
    assert await visit.page.eval_on_selector_all(".fill", parts) == ["25%", "100%", "90%"]


async def test_an_empty_proxy_is_said_to_be_empty(visiting: Visiting, proxy: Fake) -> None:
    """Nothing in flight is a sentence, not an empty page."""
    visit = await visiting(proxy.url)
    await visit.reads("#empty", "Nothing is in flight.")


async def test_a_row_opens_its_holders(visiting: Visiting, proxy: Fake) -> None:
    """By mouse or keyboard: model, age, worker and lease of each; and closes again."""
    proxy.scopes = [scope("pool", 2, 4, models=["gpt-4", "gpt-5"])]
    visit = await visiting(proxy.url)
    button = visit.page.locator(".open")
    for turn in (button.click, partial(button.press, "Enter"), partial(button.press, "Space")):
        await turn()
        await expect(button).to_have_attribute("aria-expanded", "true")
        await visit.reads(".holder .model", "gpt-4", "gpt-5")
        await turn()
        await expect(button).to_have_attribute("aria-expanded", "false")
        await visit.counts(".holder", 0)
    await button.click()
    await visit.reads(".holder .age", "6.2 s", "3.3 s")
    await visit.reads(".holder .worker bdi", "da8fea30", "da8fea31")
    await visit.reads(".holder .lease bdi", *(held["lease"] for held in proxy.scopes[0]["holders"]))


async def test_what_is_open_focused_or_scrolled_stays_so(visiting: Visiting, proxy: Fake) -> None:
    """Numbers and order change around it; the elements are the same ones."""
    proxy.scopes = [scope(f"limit-{number:02}", number, 90) for number in range(40)]
    visit = await visiting(proxy.url)
    row = visit.page.locator(".scope", has_text="limit-03")
    await row.locator(".open").focus()
    await row.locator(".open").press("Enter")
    await visit.page.evaluate(
        "() => { document.activeElement.mark = 1; scrollBy(0, -40); window.then = scrollY; }"
    )
    await visit.page.clock.run_for(STILL_MS)
    proxy.scopes[3] = scope("limit-03", 50, 90)
    await visit.shows("() => document.querySelector('.scope .name').innerText === 'limit-03'")
    assert await visit.page.evaluate("() => document.activeElement.mark === 1")
    assert await visit.page.evaluate("() => scrollY === window.then && scrollY > 0")
    await expect(row.locator(".open")).to_have_attribute("aria-expanded", "true")
    await visit.counts(".holder", 50)


async def test_nothing_moves_under_the_pointer(visiting: Visiting, proxy: Fake) -> None:
    """While somebody is in the list rows keep their places, also those that have ended; then they do not."""
    proxy.scopes = [scope("first", 8, 9), scope("second", 5, 9)]
    visit = await visiting(proxy.url)
    await visit.reads(".name", "first", "second")
    await visit.page.hover(".scope >> nth=1")
    proxy.scopes = [scope("third", 9, 9), scope("second", 6, 9)]
    await visit.reads(".name", "first", "second", "third")
    await visit.reads(".count", "0 of 9", "6 of 9", "9 of 9")
    await visit.page.mouse.move(5, 5)
    await visit.reads(".name", "third", "second")


async def test_an_open_row_stays_after_its_requests_have_ended(visiting: Visiting, proxy: Fake) -> None:
    """Its holders are gone, it says so, and it goes once it is closed."""
    proxy.scopes = [scope("pool", 1, 4)]
    visit = await visiting(proxy.url)
    await visit.page.click(".open")
    proxy.scopes = []
    await visit.reads(".scope .count", "0 of 4")
    await visit.reads(".detail > .note", "Nothing is in flight.")
    await visit.page.click(".open")
    await visit.page.focus("#filter")
    await visit.reads("#empty", "Nothing is in flight.")


async def test_scopes_are_sorted_as_asked(visiting: Visiting, proxy: Fake) -> None:
    """The proxy is asked for the order, so that it is that of all pages; at first the fullest come first."""
    proxy.scopes = some_scopes()
    visit = await visiting(proxy.url)
    await visit.tells(".scope:first-child .name", "d-observed")
    firsts = {"in_flight": "c-user", "waiting": "a-pool", "refused": "b-key", "name": "a-pool"}
    for by, first in firsts.items():
        await visit.page.select_option("#sort", by)
        await until(lambda by=by: proxy.asked[-1]["sort"] == by, 2, lambda: proxy.asked)  # type: ignore[misc]
        await visit.reads(".scope:first-child .name", first)


async def test_the_filter_looks_at_names_and_identities(visiting: Visiting, proxy: Fake) -> None:
    """Each word must be found, in small letters or capitals."""
    proxy.scopes = some_scopes()
    visit = await visiting(proxy.url)
    await visit.counts(".scope", 6)
    found = {"user": 2, "KEY 3fa": 1, "team=research": 1, "gpt-4 key": 1, "c-": 1, "": 6, "nobody": 0}
    for words, number in found.items():
        await visit.page.fill("#filter", words)
        await visit.counts(".scope", number)
        await visit.reads("#found", f"{number} of 6" if words else "6")
    await visit.reads("#empty", "No scope matches the filter.")


async def test_many_scopes_are_on_pages(visiting: Visiting, proxy: Fake) -> None:
    """A hundred a page; a filter looks through a thousand; a page that is no more gives way to the last."""
    proxy.scopes = [scope(f"limit-{number:03}", 1, 9) for number in range(250)]
    visit = await visiting(proxy.url)
    await visit.page.select_option("#sort", "name")
    await visit.reads("#page", "Page 1 of 3")
    await expect(visit.page.locator("#previous")).to_be_disabled()
    for first in ("limit-100", "limit-200"):
        await visit.page.click("#next")
        await visit.reads(".scope:first-child .name", first)
    await expect(visit.page.locator("#next")).to_be_disabled()
    proxy.scopes = proxy.scopes[:150]
    await visit.reads("#page", "Page 2 of 2")
    await visit.page.fill("#filter", "limit-01")
    await visit.counts(".scope", 10)
    await visit.counts("#pages", 0)
    assert proxy.asked[-1]["page_size"] == "1000"


async def test_a_degraded_store_is_told_of(visiting: Visiting, proxy: Fake) -> None:
    """A banner says so while it lasts, and what the numbers are worth."""
    visit = await visiting(proxy.url)
    await visit.counts("#degraded", 0)
    proxy.degraded = True
    await visit.tells("#degraded", "the store (redis) does not answer")
    await visit.tells("#store-note", "out for 12.0 s")
    proxy.degraded = False
    await visit.counts("#degraded", 0)


async def test_a_proxy_that_is_gone_is_told_of_until_it_is_back(visiting: Visiting) -> None:
    """What was last known stays, and since when; the page finds the proxy again by itself."""
    proxy = Fake(free_port())
    proxy.scopes = [scope("pool", 1, 4)]
    with proxy.running():
        visit = await visiting(proxy.url)
        await visit.reads(".count", "1 of 4")
    await visit.tells("#unreached", "not reached since")
    await visit.reads(".count", "1 of 4")
    await visit.reads("#pulse", "not reached")
    proxy.scopes = [scope("pool", 3, 4)]
    with proxy.running():
        await visit.reads(".count", "3 of 4")
        await visit.counts("#unreached", 0)
        proxy.failing = 503
        await visit.tells("#unreached", "HTTP 503")


async def test_it_asks_less_often_while_it_gets_no_answer(visiting: Visiting, proxy: Fake) -> None:
    """Once a second, and after some failures every five."""
    visit = await visiting(proxy.url)
    proxy.failing = 503
    for seconds in (1, 1, 2, 5):
        asked = len(proxy.asked)
        await visit.page.clock.run_for(seconds * 1000)
        await until(partial(proxy.has_answered, asked + 1), 2, lambda: proxy.asked)
    asked = len(proxy.asked)
    await visit.page.clock.run_for(3500)
    assert len(proxy.asked) == asked
    await visit.tells("#unreached", "HTTP 503")


async def test_the_next_question_waits_for_the_answer(visiting: Visiting, proxy: Fake) -> None:
    """A page asks a slow proxy never twice at once, and while it is hidden it does not ask."""
    proxy.seconds = 0.3
    visit = await visiting(proxy.url)
    await until(lambda: len(proxy.asked) == 2, 8, lambda: proxy.asked)
    assert max(proxy.at_once) == 1
    proxy.seconds = 0
    await visit.page.evaluate(AWAY, True)  # noqa: FBT003
    asked = len(proxy.asked)
    await visit.page.clock.run_for(3000)
    assert len(proxy.asked) == asked
    await visit.page.evaluate(AWAY, False)  # noqa: FBT003
    await until(lambda: len(proxy.asked) > asked, 1, lambda: proxy.asked)


AWAY = """(isAway) => {
  Object.defineProperty(document, "hidden", { get: () => isAway, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""
"""Turn to another tab, or back."""


async def test_any_other_key_sees_its_own_and_no_chart(visiting: Visiting, proxy: Fake) -> None:
    """Who is no admin has no history, and nothing to release."""
    proxy.scopes = [scope("pool", 1, 4)]
    visit = await visiting(proxy.url, GUEST)
    await visit.page.click(".open")
    await visit.reads(".detail > .note", "Who holds this is shown to admins, and to whose requests they are.")
    await visit.counts("#past, .release", 0)


async def test_a_slot_is_released_after_a_second_word(visiting: Visiting, proxy: Fake) -> None:
    """Cancel and Escape do nothing; what the proxy did is said."""
    proxy.scopes = [scope("pool", 3, 4)]
    lease = proxy.scopes[0]["holders"][1]["lease"]
    visit = await visiting(proxy.url)
    await visit.page.click(".open")
    release = visit.page.get_by_role("button", name=f"Release lease {lease} of gpt-4")
    await release.click()
    cancel = visit.page.get_by_role("button", name="Cancel")
    await expect(cancel).to_be_focused()
    await cancel.press("Escape")
    await expect(release).to_be_focused()
    await release.press("Enter")
    await cancel.press("Enter")
    assert proxy.released == []
    await release.click()
    await visit.page.get_by_role("button", name="Yes, release").click()
    await visit.reads(".count", "2 of 4")
    await visit.reads("#said", f"Released {lease}: 1 slot.")
    assert proxy.released == [{"lease": lease}]
    await expect(visit.page.locator(".open")).to_be_focused()


async def test_who_may_not_release_is_told(visiting: Visiting, proxy: Fake) -> None:
    """A viewer sees who holds what; after a try the buttons are gone, and the key is still good."""
    proxy.scopes = [scope("pool", 1, 4)]
    visit = await visiting(proxy.url, VIEWER)
    await visit.page.click(".open")
    await visit.page.click(".release .first")
    await visit.page.click(".release .yes")
    await visit.reads("#said", "This key may not release.")
    await visit.counts(".release", 0)
    await visit.reads(".holder .model", "gpt-4")


async def test_the_chart_shows_the_last_quarter_of_an_hour(visiting: Visiting, proxy: Fake) -> None:
    """Of all limits or of one, with the refusals as bars below; the pointer reads a moment out."""
    proxy.past |= {
        "in_flight": [float(number % 60) for number in range(180)],
        "refused": [0] * 170 + [3] * 10,
        "limits": {"pool": {"in_flight": [2.0] * 180, "refused": [0] * 179 + [1]}},
    }
    visit = await visiting(proxy.url)
    everything = "In flight over the last 15 minutes: lately 59, at most 59; 30 refused."
    await visit.counts(f"#chart svg[aria-label='{everything}']", 1)
    await visit.counts(".refusal", 10)
    await visit.page.hover("#chart", position={"x": 600, "y": 60})
    await visit.tells("#readout", "in flight, 0 refused")
    await visit.page.select_option("#limit", "pool")
    pool = "In flight in pool over the last 15 minutes: lately 2, at most 2; 1 refused."
    await visit.counts(f"#chart svg[aria-label='{pool}']", 1)
    await visit.counts(".refusal", 1)


async def test_names_of_strangers_are_text(visiting: Visiting, proxy: Fake) -> None:
    """Markup, text that turns around, half characters and endless names are shown, and do nothing."""
    names = [MARKUP, BIDI, HALF, LONG]
    proxy.scopes = [scope("pool", 1, 4, user=name, models=[name]) for name in names]
    proxy.past["limits"] = {MARKUP: {"in_flight": [0] * 180, "refused": [0] * 180}}
    visit = await visiting(proxy.url)
    await visit.counts(".scope", 4)
    for button in await visit.page.locator(".open").all():
        await button.click()
    whole = "([where, names]) => names.every((name) => [...document.querySelectorAll(where)]"
    for where in (".who bdi", ".holder .model bdi"):
        await visit.shows(f"{whole}.some((one) => one.textContent === name))", where, names)
    assert await visit.page.locator("img, main script").count() == 0
