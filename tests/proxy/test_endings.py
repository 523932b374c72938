"""However a request ends, its slot is free again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import pytest

from tests.proxy import endings
from tests.proxy.endings import Act, Caller
from tests.rig.litellm_version import (
    BROKEN_OFF,
    MESSAGES_CACHE,
    MESSAGES_TIME_OUT,
    MODERATION,
    RESPONSES_CACHE,
    Ability,
    marks,
)
from tests.rig.polling import until
from tests.rig.provider import Provider
from tests.rig.proxy import Proxy
from tests.rig.routes import CHAT, COMPLETIONS, EMBEDDINGS, MESSAGES, RESPONSES, Route

pytestmark = [pytest.mark.proxy, pytest.mark.timeout(300)]  # the first test runs all the rows

AT_ONCE = 8
"""Rows under way at the same time: they have different keys, so that none concerns another."""

ROUTES = (CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES, MESSAGES)
NOT_MESSAGES = (CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES)
# LiteLLM's router does not see a streamed completion fail: no retry, no fallback.
NOT_COMPLETIONS = (CHAT, EMBEDDINGS, RESPONSES, MESSAGES)


@dataclass(frozen=True)
class Row:
    """An ending of requests on a route, `rounds` times in a row.

    `early`: the proxy opens streams before the provider answers (SSE keep-alive). `leaves`: the client
    does not see the end. `calls`: how many calls of the provider one request makes at once. `needs`: what
    LiteLLM must be able to do.
    """

    ending: Act
    route: Route
    streams: bool
    early: bool = False
    leaves: bool = False
    rounds: int = 2
    calls: int = 1
    needs: Ability | None = None

    def __str__(self) -> str:
        words = (self.route.name, "stream" * self.streams, "early" * self.early, self.ending.__name__)
        return "-".join(filter(None, words))


def _whole(ending: Act, routes: Iterable[Route] = ROUTES, **options: Any) -> Iterator[Row]:
    return (Row(ending, route, streams=False, **options) for route in routes)


def _streamed(ending: Act, routes: Iterable[Route] = ROUTES, **options: Any) -> Iterator[Row]:
    return (Row(ending, route, streams=True, **options) for route in routes if route.streams)


def _both(ending: Act, routes: Iterable[Route] = ROUTES, **options: Any) -> Iterator[Row]:
    return chain(_whole(ending, routes, **options), _streamed(ending, routes, **options))


ROWS = (
    *_both(endings.success),
    *_streamed(endings.answered_and_gone_on, rounds=10),
    *_both(endings.provider_error),
    *_both(endings.provider_429),
    *_both(endings.time_out, NOT_MESSAGES, rounds=1),
    *_both(endings.time_out, [MESSAGES], rounds=1, needs=MESSAGES_TIME_OUT),
    *_whole(endings.reset, [CHAT, COMPLETIONS, EMBEDDINGS]),
    *_whole(endings.reset, [RESPONSES, MESSAGES], needs=BROKEN_OFF),
    *_streamed(endings.reset_mid_stream, [COMPLETIONS]),
    *_streamed(endings.reset_mid_stream, NOT_COMPLETIONS, needs=BROKEN_OFF),
    *_both(endings.refused),
    *_streamed(endings.refused_mid_stream),
    *_both(endings.left_waiting, leaves=True),
    *_streamed(endings.left_before_first_byte, leaves=True),
    *_streamed(endings.left_mid_stream, leaves=True),
    *_both(endings.rejected_before),
    *_both(endings.rejected_after),
    *_both(endings.moderated, needs=MODERATION),
    *_whole(endings.success_hook_raises),
    *_both(endings.unknown_model),
    *_both(endings.no_question),
    *_both(endings.no_json),
    *_both(endings.cached, [CHAT, COMPLETIONS]),  # what a request adds of embeddings, no later one is given
    *_both(endings.cached, [RESPONSES], needs=RESPONSES_CACHE),
    *_both(endings.cached, [MESSAGES], needs=MESSAGES_CACHE),
    *_whole(endings.retried, rounds=1),
    *_streamed(endings.retried, NOT_COMPLETIONS, rounds=1),
    *_whole(endings.fell_back),
    *_streamed(endings.fell_back, NOT_COMPLETIONS),
    *_whole(endings.several_models, [CHAT], calls=2),
    *_streamed(endings.success, early=True),
    *_streamed(endings.answered_and_gone_on, rounds=10, early=True),
    *_streamed(endings.provider_error_late, early=True),
    *_streamed(endings.time_out_late, NOT_MESSAGES, early=True, rounds=1),
    *_streamed(endings.time_out_late, [MESSAGES], early=True, rounds=1, needs=MESSAGES_TIME_OUT),
    *_streamed(endings.reset_mid_stream, [COMPLETIONS], early=True),
    *_streamed(endings.reset_mid_stream, NOT_COMPLETIONS, early=True, needs=BROKEN_OFF),
    *_streamed(endings.refused, early=True),
    *_streamed(endings.refused_mid_stream, early=True),
    *_streamed(endings.left_waiting, early=True, leaves=True),
    *_streamed(endings.left_before_first_byte, early=True, leaves=True),
    *_streamed(endings.left_mid_stream, early=True, leaves=True),
    *_streamed(endings.rejected_after, early=True),
    *_streamed(endings.moderated, early=True, needs=MODERATION),
)


async def run(row: Row, proxy: Proxy, provider: Provider) -> None:
    """Let requests end in the way of `row`, each followed at once by one that is to be admitted."""
    async with Caller.at(proxy, provider, row.route, streams=row.streams) as caller:
        for _ in range(row.rounds):
            await row.ending(caller)
            if row.leaves:
                await _is_let_in_again(caller)
            else:
                await caller.must_end(200)
        assert caller.count().peak <= row.calls


async def _is_let_in_again(caller: Caller) -> None:
    """Return once a client that left is admitted: not before the provider is done with it, soon after."""
    if caller.streams:  # LiteLLM is done when the client leaves, and closes the provider's stream a bit later
        await caller.provider.holds(0, caller=caller.name)
    await until(caller.is_admitted, 2, caller.count)


Outcomes = Mapping[Row, BaseException | None]


@pytest.fixture(scope="module")
def outcomes(
    request: pytest.FixtureRequest, store: str, proxy: Proxy, keepalive_proxy: Proxy, provider: Provider
) -> Outcomes:
    """Run every row that the test run has a test of, several at the same time."""
    tests = {item.name for item in request.session.items}
    possible = [row for row in ROWS if row.needs is None or row.needs]
    rows = [row for row in possible if f"{test_the_slot_is_free_again.__name__}[{store}-{row}]" in tests]
    return asyncio.run(_run_all(rows, proxy, keepalive_proxy, provider))


async def _run_all(rows: list[Row], proxy: Proxy, keepalive_proxy: Proxy, provider: Provider) -> Outcomes:
    places = asyncio.Semaphore(AT_ONCE)

    async def run_one(row: Row) -> None:
        async with places:
            await run(row, keepalive_proxy if row.early else proxy, provider)

    results = await asyncio.gather(*map(run_one, rows), return_exceptions=True)
    return dict(zip(rows, results, strict=True))


@pytest.mark.parametrize("row", [pytest.param(row, marks=marks(row.needs), id=str(row)) for row in ROWS])
def test_the_slot_is_free_again(outcomes: Outcomes, row: Row) -> None:
    """With a limit of 1 the next request is admitted, and the provider never holds two."""
    if error := outcomes[row]:
        raise error


async def test_nothing_is_left(outcomes: Outcomes, proxy: Proxy, keepalive_proxy: Proxy) -> None:
    """After all these endings nothing is in flight."""
    await proxy.settled()
    await keepalive_proxy.settled()
