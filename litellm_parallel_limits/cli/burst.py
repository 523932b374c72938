"""Many requests at once, and what becomes of each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from litellm_parallel_limits.cli.exits import NotAnsweredError

BURST = (
    *[("gpt-4", "alice")] * 4,
    *[("llama-70b", f"customer-{number}") for number in range(1, 6)],
    *[("gpt-3.5-turbo", "bob")] * 6,
)
"""Model and customer of each request: each kind is more than one limit of the sample admits at once."""

WAITED = "x-parallel-limit-waited-ms"

SECONDS = 60.0
"""For an answer: the sample's models take one second, after ten of waiting."""

REFUSED = 429


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one request, and after how many seconds; `waited` are those it waited for a slot."""

    model: str
    customer: str
    admitted: bool
    message: str
    seconds: float
    waited: float


async def burst(url: str, key: str, ended: Callable[[Outcome], None]) -> tuple[Sequence[Outcome], int]:
    """Send the burst; return what became of it, and how many requests are in flight after it.

    `ended` is told of each as it ends. Raises NotAnsweredError for an answer that it should not be.
    """
    try:
        return await _sent(url, key, ended)
    except httpx.HTTPError as error:
        raise NotAnsweredError(f"The proxy did not answer: {type(error).__name__} {error}") from error


async def _sent(url: str, key: str, ended: Callable[[Outcome], None]) -> tuple[Sequence[Outcome], int]:
    headers = {"authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=SECONDS, trust_env=False) as client:

        async def told(model: str, customer: str) -> Outcome:
            outcome = await _ask(client, model, customer)
            ended(outcome)
            return outcome

        # The first request of a process imports for a second; it would blur the burst.
        await _ask(client, "gpt-3.5-turbo", "nobody")
        outcomes = await asyncio.gather(*(told(model, customer) for model, customer in BURST))
        status = (await client.get("/parallel_limits/status")).raise_for_status().json()
    return outcomes, int(status["in_flight"])


async def _ask(client: httpx.AsyncClient, model: str, customer: str) -> Outcome:
    begun = time.monotonic()
    body: dict[str, Any] = {
        "model": model,
        "user": customer,
        "messages": [{"role": "user", "content": "Hello"}],
    }
    reply = await client.post("/v1/chat/completions", json=body)
    if not reply.is_success and reply.status_code != REFUSED:
        raise NotAnsweredError(
            f"The proxy answered what it should not: {reply.status_code} {reply.text[:300]}"
        )
    message = "" if reply.is_success else str(reply.json()["error"]["message"])
    waited = int(reply.headers.get(WAITED, "0")) / 1000
    seconds = round(time.monotonic() - begun, 3)
    return Outcome(model, customer, reply.is_success, message, seconds, waited)
