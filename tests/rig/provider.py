"""The provider's process, and what it counts."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.rig.ledger import ANY, Count, History
from tests.rig.polling import until
from tests.rig.process import HOST, Server, environment, free_port

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Provider:
    """A running provider; `url` is where its routes begin."""

    server: Server
    url: str
    control: httpx.Client

    @classmethod
    def start(cls, folder: Path) -> Provider:
        """Start a provider that keeps its log in `folder`."""
        port = free_port()
        url = f"http://{HOST}:{port}"
        command = [sys.executable, "-m", "tests.rig.provider_app", "--port", str(port)]
        server = Server.start(command, folder, environment(PYTHONPATH=str(ROOT)))
        # Every look takes its own connection: uvicorn may be about to close an idle one.
        control = httpx.Client(
            base_url=url, limits=httpx.Limits(max_keepalive_connections=0), trust_env=False
        )
        provider = cls(server, url, control)
        server.wait_until(lambda: control.get("/count").is_success, seconds=20)
        return provider

    def stop(self) -> None:
        """End the process."""
        self.control.close()
        self.server.stop(seconds=1)

    def count(self, *, model: str = ANY, caller: str = ANY) -> Count:
        """Return what was counted of `model` (as the provider sees its name) and `caller`."""
        reply = self.control.get("/count", params={"model": model, "caller": caller})
        return Count(**reply.raise_for_status().json())

    def history(self, caller: str) -> History:
        """Return how many requests of `caller` were in flight, and when, since the last reset."""
        reply = self.control.get("/history", params={"caller": caller})
        return History([(moment, number) for moment, number in reply.raise_for_status().json()])

    async def holds(
        self, in_flight: int, *, model: str = ANY, caller: str = ANY, seconds: float = 10
    ) -> None:
        """Return once exactly so many requests are in flight. Raises AssertionError if that never comes."""

        def count() -> Count:
            return self.count(model=model, caller=caller)

        await until(lambda: count().in_flight == in_flight, seconds, count)

    def open_gate(self, caller: str = ANY) -> None:
        """Let the `gated` requests of `caller` go on, those to come too."""
        self.control.post("/gate/open", params={"caller": caller}).raise_for_status()

    def close_gate(self, caller: str = ANY) -> None:
        """Hold the `gated` requests of `caller` from now on."""
        self.control.post("/gate/close", params={"caller": caller}).raise_for_status()

    def reset(self) -> None:
        """Forget every count, and close every gate."""
        self.control.post("/reset").raise_for_status()
