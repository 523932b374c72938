"""A burst on the sample configuration, and what became of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
from openai import AsyncOpenAI, OpenAIError, RateLimitError
from rich.console import Console
from rich.table import Table
from rich.text import Text

SAMPLE = "sample_config.yaml"
KEY = "sk-parallel-limits-sample-only"
"""The master key in the sample configuration."""

START_SECONDS = 180.0
"""A proxy imports for 5 to 60 seconds, depending on the machine."""

BURST = (
    *[("gpt-4", "alice")] * 4,
    *[("llama-70b", f"customer-{number}") for number in range(1, 6)],
    *[("gpt-3.5-turbo", "bob")] * 6,
)
"""Model and customer of each request: each kind is more than one limit of the sample admits at once."""

WAITED = "x-parallel-limit-waited-ms"


_SERVICES = ("LITELLM_", "REDIS_", "DATABASE_", "NUM_WORKERS", "WEB_CONCURRENCY")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one request."""

    model: str
    customer: str
    admitted: bool
    told: str


def run(*, show_log: bool) -> int:
    """Run the demo; return the exit code."""
    console = Console()
    console.print("Starting a LiteLLM proxy on the sample configuration …")
    with _proxy(show_log=show_log) as url:
        outcomes, left = asyncio.run(_burst(url))
    console.print(_table(outcomes))
    admitted = sum(outcome.admitted for outcome in outcomes)
    console.print(f"{admitted} admitted, {len(outcomes) - admitted} refused, {left} left in flight.")
    return 0 if left == 0 and 0 < admitted < len(outcomes) else 1


async def _burst(url: str) -> tuple[list[Outcome], int]:
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client:
        # The first request of a process imports for a second; it would blur the burst.
        await _ask(client, "gpt-3.5-turbo", "nobody")
        outcomes = await asyncio.gather(*(_ask(client, model, customer) for model, customer in BURST))
    async with httpx.AsyncClient(headers={"authorization": f"Bearer {KEY}"}, timeout=10) as http:
        status: dict[str, Any] = (await http.get(f"{url}/parallel_limits/status")).raise_for_status().json()
    return outcomes, int(status["in_flight"])


async def _ask(client: AsyncOpenAI, model: str, customer: str) -> Outcome:
    begun = time.monotonic()
    try:
        answer = await client.chat.completions.with_raw_response.create(
            model=model, user=customer, messages=[{"role": "user", "content": "Hello"}]
        )
    except RateLimitError as error:
        return Outcome(model, customer, admitted=False, told=_message(error))
    except OpenAIError as error:
        raise SystemExit(f"The proxy answered what it should not: {error}") from error
    seconds, waited = time.monotonic() - begun, int(answer.headers.get(WAITED, "0")) / 1000
    told = f"answered after {seconds:.1f} s" + (f", waited {waited:.1f} s" if waited else "")
    return Outcome(model, customer, admitted=True, told=told)


def _message(error: RateLimitError) -> str:
    body = error.body
    return str(body["message"]) if isinstance(body, dict) and "message" in body else str(error)


def _table(outcomes: list[Outcome]) -> Table:
    table = Table("model", "customer", "", "", title="One burst, all at once")
    for outcome in outcomes:
        verdict = Text("admitted", "green") if outcome.admitted else Text("refused", "red")
        table.add_row(outcome.model, outcome.customer, verdict, Text(outcome.told))
    return table


@contextlib.contextmanager
def _proxy(*, show_log: bool) -> Iterator[str]:
    """Run a proxy on a free port of this machine while the context lasts; yield its URL."""
    port = _free_port()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, SAMPLE)
        config.write_text(_sample())
        log = Path(folder, "log")
        with log.open("wb") as output:
            command = [sys.executable, "-c", "from litellm import run_server; run_server()"]
            process = subprocess.Popen(  # noqa: S603 (our own command)
                [*command, "--config", str(config), "--host", "127.0.0.1", "--port", str(port)],
                stdout=None if show_log else output,
                stderr=None if show_log else output,
                env=_environment(),
            )
            try:
                _wait(process, port, log)
                yield f"http://127.0.0.1:{port}"
            finally:
                _stop(process)


def _environment() -> dict[str, str]:
    """Return this environment without what would point the sample at somebody's real services."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_SERVICES)}
    return {**kept, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"The proxy did not start:\n{log.read_text(errors='replace')[-4000:]}")
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"http://127.0.0.1:{port}/health/liveliness", timeout=1).is_success:
                return
        time.sleep(0.2)
    raise SystemExit(f"The proxy did not answer within {START_SECONDS:.0f} s")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _sample() -> str:
    """Return the sample configuration: in the installed package, or at the top of a checkout."""
    package = files("litellm_parallel_limits")
    installed = package / SAMPLE
    return (installed if installed.is_file() else Path(str(package)).parent / SAMPLE).read_text()
