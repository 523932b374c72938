"""`python -m tests.screenshots`: the pictures in docs/images, of a real proxy under load.

What is in flight in them is real, and so are the last seconds of the chart. The quarter of an hour before is
made up, and put where the workers would have noted it.
"""

from __future__ import annotations

import asyncio
import io
import math
import re
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import httpx
from playwright.async_api import Browser
from redis.asyncio import Redis
from rich.console import Console

from litellm_parallel_limits.cli.views import status_view
from litellm_parallel_limits.history import (
    HELD,
    LATELY_STEPS,
    MOST_NAMES,
    PAST_SECONDS,
    REFUSED,
    SAMPLES,
    STEP_SECONDS,
    STEPS,
)
from litellm_parallel_limits.stores.redis import RedisBackend
from tests.page.browser import DESKTOP, PHONE, Visit, chromium
from tests.rig.burst import Ask
from tests.rig.config import config, deployment
from tests.rig.identities import TAKES, admin_key, key
from tests.rig.provider import Provider
from tests.rig.proxy import PLAIN, Proxy
from tests.rig.redis_server import RedisServer

IMAGES = Path(__file__).parents[1] / "docs" / "images"
TERMINAL_CELLS = 100

RAMP_SECONDS = 10.0
"""Until as much is in flight as ever will be."""

SETTLE_SECONDS = 20.0
"""Until a picture is taken: some refusals, and steps of the chart."""

MODELS = ("gpt-4o", "gpt-4o-mini", "claude-sonnet", "llama-70b", "llama-8b")

LIMITS: tuple[dict[str, Any], ...] = (
    {
        "name": "llama-gpu",
        "models": ["llama-*"],
        "max_parallel_requests": 8,
        "wait": {"max_seconds": 60, "fair_by": "user"},
    },
    {"name": "per-user", "by": ["user"], "max_parallel_requests": 12},
    {
        "name": "research-gpt4o",
        "by": ["team", "model"],
        "where": {"team": ["research"]},
        "models": ["gpt-4o"],
        "max_parallel_requests": 5,
        "mode": "observe",
    },
)


@dataclass(frozen=True)
class Party:
    """Whose requests are in flight: so many `clients` ask for `model`, each for `seconds` at a time."""

    model: str
    clients: int
    seconds: float
    record: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ask(self) -> Ask:
        """A request of a key of its own."""
        return Ask(key(**self.record), self.model)


def _of(user: str, team: str, most: int, **metadata: object) -> dict[str, Any]:
    of_team = {"team_id": team, "team_metadata": {"max_parallel_requests": most}}
    return {"user_id": user, "metadata": metadata, **of_team}


PARTIES = (
    Party("gpt-4o", 7, 6.0, _of("ann", "research", 40)),
    Party("claude-sonnet", 4, 5.0, _of("ann", "research", 40)),
    Party("gpt-4o-mini", 5, 3.0, _of("bob", "research", 40, model_max_parallel_requests={"gpt-4o-mini": 3})),
    Party("llama-70b", 6, 8.0, _of("carol", "growth", 24)),
    Party("llama-8b", 7, 4.0, _of("dave", "growth", 24)),
    Party("claude-sonnet", 3, 4.0, _of("erin", "growth", 24, max_parallel_requests=20)),
    Party("gpt-4o", 2, 5.0, _of("frank", "support", 10, model_max_parallel_requests={"gpt-4o": 4})),
)


async def main() -> None:
    """Take all pictures."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    with started() as (proxy, redis):
        async with load(proxy), chromium() as browser:
            await asyncio.sleep(RAMP_SECONDS)
            await make_up(redis)
            await asyncio.sleep(SETTLE_SECONDS)
            await picture(browser, proxy, "page-desktop", viewport=DESKTOP)
            await picture(browser, proxy, "page-dark", opened=False, viewport=DESKTOP, color_scheme="dark")
            await picture(browser, proxy, "page-phone", opened=False, viewport=PHONE)
            terminal(proxy)


@contextmanager
def started() -> Iterator[tuple[Proxy, RedisServer]]:
    """Yield a proxy, and its Redis server, as long as the context lasts."""
    with ExitStack() as running:
        folders = [Path(running.enter_context(tempfile.TemporaryDirectory())) for _ in range(3)]
        provider = Provider.start(folders[0])
        running.callback(provider.stop)
        redis = RedisServer.start(folders[1])
        running.callback(redis.stop)
        configured = config(
            provider.url,
            redis_port=redis.port,
            models=[deployment(name, f"openai/told:{name}", provider.url) for name in MODELS],
            litellm_settings={"parallel_limits": {"limits": list(LIMITS)}},
        )
        proxy = Proxy.start(folders[2], configured, workers=2)
        running.callback(proxy.stop)
        yield proxy, redis


@asynccontextmanager
async def load(proxy: Proxy) -> AsyncIterator[None]:
    """Have all parties ask, as long as the context lasts."""
    chance = Random(5)
    clients = [
        asyncio.create_task(_client(proxy, party, ask, Random(chance.random())))
        for party in PARTIES
        for ask in [party.ask]
        for _ in range(party.clients)
    ]
    yield
    for client in clients:
        client.cancel()
    await asyncio.gather(*clients, return_exceptions=True)


async def _client(proxy: Proxy, party: Party, ask: Ask, chance: Random) -> None:
    async with proxy.http(ask.key, timeout=120) as http:
        while True:
            seconds = party.seconds * chance.uniform(0.4, 1.8)
            body = {"model": ask.model, "messages": [{"role": "user", "content": "hi"}]}
            answer = await http.post("/v1/chat/completions", json=body, headers={TAKES: f"{seconds:.1f}"})
            is_refused = answer.status_code == httpx.codes.TOO_MANY_REQUESTS
            await asyncio.sleep(chance.uniform(2, 5) if is_refused else chance.uniform(0, 0.4))


async def make_up(redis: RedisServer) -> None:
    """Note what workers might have held and refused until now, instead of what they did."""
    client, chance = Redis.from_url(redis.url, decode_responses=True), Random(11)
    await asyncio.sleep(STEP_SECONDS - time.time() % STEP_SECONDS)
    now = int(time.time()) // STEP_SECONDS
    real = [name async for name in client.scan_iter("*:noted:*") if not name.endswith(str(now))]
    await client.delete(*real)
    backend = RedisBackend(client, ttl=30)
    for back in range(STEPS, 0, -1):
        await backend.note(
            f"past-{now - back}", _made_up(back, chance), seconds=PAST_SECONDS, most=MOST_NAMES
        )
    await client.aclose()


def _made_up(back: int, chance: Random) -> dict[str, int]:
    wave = 26 + 7 * math.sin(back / 23) + 3 * math.sin(back / 6.1) + chance.gauss(0, 1)
    burst = 22 * math.exp(-(((back - 62) / 9) ** 2)) + 14 * math.exp(-(((back - 128) / 6) ** 2))
    shares = {"": 1.0, "per-user": 1.0, "team": 1.0, "llama-gpu": 0.2, "model_per_key": 0.15}
    held = {f"{HELD}:{name}": round((wave + burst) * share * SAMPLES) for name, share in shares.items()}
    refused = round(burst / 4 * chance.random() + max(0.0, chance.gauss(-1, 1)))
    # None in the last minute: status would tell them, too.
    return held | ({f"{REFUSED}:model_per_key": refused} if refused and back > LATELY_STEPS else {})


async def picture(browser: Browser, proxy: Proxy, name: str, *, opened: bool = True, **look: Any) -> None:
    """Take a picture of the page, with the holders of one scope if a row is to be `opened`."""
    context = await browser.new_context(**look)
    visit = await Visit.begin(context, f"{proxy.url}/parallel_limits/", admin_key(), flying=False)
    await visit.counts("#chart svg", 1)
    await visit.shows("() => document.querySelectorAll('.scope').length > 5")
    if opened:
        await visit.page.click(".scope:has-text('model_per_key') .open >> nth=0")
    await visit.page.mouse.move(0, 0)
    await visit.page.wait_for_timeout(1500)
    await visit.page.screenshot(path=IMAGES / f"{name}.png")
    await context.close()


def terminal(proxy: Proxy) -> None:
    """Draw what `top` shows."""
    console = Console(record=True, file=io.StringIO(), width=TERMINAL_CELLS)
    console.print(status_view(_read(proxy, "status?sort=utilization"), _read(proxy, "history")))
    svg = console.export_svg(title="litellm-parallel-limits top", unique_id="top")
    # Its fonts would come from another host; without them it is in the monospace font that there is.
    (IMAGES / "top.svg").write_text(re.sub(r"@font-face\s*\{[^}]*\}\s*", "", svg))


def _read(proxy: Proxy, what: str) -> Any:
    headers = {"authorization": f"Bearer {admin_key()}"}
    reply = httpx.get(f"{proxy.url}/parallel_limits/{what}", headers=headers, timeout=10, **PLAIN)
    return reply.raise_for_status().json()


if __name__ == "__main__":
    asyncio.run(main())
