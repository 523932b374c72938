"""A real LiteLLM proxy in a process of its own, and its clients."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI, OpenAI

from tests.rig.identities import CALLER, admin_key, caller
from tests.rig.litellm_version import PATIENCE
from tests.rig.polling import until
from tests.rig.process import HOST, Server, environment, free_port

BESIDE_CONFIG = Path(__file__).parent / "beside_config"
STATUS = "/parallel_limits/status"
PATIENT = {"--timeout_worker_healthcheck": 60} if PATIENCE else {}
"""The server does not take a worker that a busy machine starts slowly for one that hangs."""

PLAIN: dict[str, Any] = {"trust_env": False, "verify": False}
"""What spares a client reading all the certificates there are, for which it has no use here."""

RESTART_SECONDS = 120
"""A server that is asking a worker for a sign of life when it is killed goes on asking, see above."""

START_SECONDS = 120
"""A proxy imports for 5 to 60 seconds, depending on the machine."""

OFFLINE = {
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",
    "LITELLM_LOCAL_AUTOROUTER_PRESETS": "True",
    "LITELLM_LOCAL_BLOG_POSTS": "True",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOCAL_POLICY_TEMPLATES": "True",
    "LITELLM_TELEMETRY": "False",
}
"""What keeps LiteLLM from looking for the internet."""


@dataclass(frozen=True)
class Proxy:
    """A proxy's process; `url` is where its routes begin."""

    server: Server
    url: str
    port: int

    @classmethod
    def launch(
        cls,
        folder: Path,
        config: Mapping[str, Any],
        *,
        workers: int = 1,
        flags: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> Proxy:
        """Start a proxy whose files are in `folder`, without waiting until it answers.

        `flags` are for LiteLLM's command line, beside those that every proxy has. With an `env` of its own
        it imports LiteLLM in that.
        """
        shutil.copytree(
            BESIDE_CONFIG, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
        )
        path = folder / "config.yaml"
        path.write_text(yaml.safe_dump(dict(config), sort_keys=False))
        port = free_port()
        options = {"--config": path, "--host": HOST, "--port": port, "--num_workers": workers}
        if workers > 1 and not flags:
            options |= PATIENT
        arguments = [*flags, *(str(word) for option in options.items() for word in option)]
        if env is None:
            server = Server.litellm(arguments, folder, environment(**OFFLINE))
        else:
            command = [sys.executable, "-c", "from litellm import run_server; run_server()", *arguments]
            server = Server.start(command, folder, environment(**OFFLINE, **env))
        return cls(server, f"http://{HOST}:{port}", port)

    @classmethod
    def start(cls, folder: Path, config: Mapping[str, Any], **launching: Any) -> Proxy:
        """Launch a proxy and wait until it answers. Raises StartError with its log if it does not."""
        proxy = cls.launch(folder, config, **launching)
        proxy.server.wait_until(proxy.is_alive, seconds=START_SECONDS)
        return proxy

    def stop(self) -> None:
        """End the process."""
        self.server.stop()

    def is_alive(self) -> bool:
        """Whether it answers. Raises httpx.TransportError if nobody listens."""
        return httpx.get(f"{self.url}/health/liveliness", **PLAIN).is_success

    def workers(self) -> list[int]:
        """Return the processes that serve requests."""
        parent = self.server.process.pid
        started = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        workers = [int(pid) for pid in started if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()]
        return workers or [parent]

    def log(self) -> str:
        """Return everything it has written so far."""
        return self.server.output()

    def http(self, key: str, **options: Any) -> httpx.AsyncClient:
        """Return a plain client that sends `key`."""
        headers = {"authorization": f"Bearer {key}", CALLER: caller(key)}
        options = {"base_url": self.url, "timeout": 30, **PLAIN, **options}
        return httpx.AsyncClient(headers=headers, **options)

    def openai(self, key: str, **options: Any) -> OpenAI:
        """Return OpenAI's client, which does not retry."""
        return OpenAI(base_url=f"{self.url}/v1", **_sdk_options(key) | options)

    def async_openai(self, key: str, **options: Any) -> AsyncOpenAI:
        """Return OpenAI's asynchronous client, which does not retry."""
        return AsyncOpenAI(base_url=f"{self.url}/v1", **_sdk_options(key) | options)

    def async_anthropic(self, key: str, **options: Any) -> AsyncAnthropic:
        """Return Anthropic's asynchronous client, which does not retry."""
        return AsyncAnthropic(base_url=self.url, **_sdk_options(key) | options)

    def status(self) -> dict[str, Any]:
        """Return what the plugin says is in flight, without the limits that have only refused lately."""
        headers = {"authorization": f"Bearer {admin_key()}"}
        reply = httpx.get(self.url + STATUS, params={"page_size": 1000}, headers=headers, timeout=10, **PLAIN)
        document: dict[str, Any] = reply.raise_for_status().json()
        in_use = [scope for scope in document["scopes"] if scope["in_flight"] or scope["waiting"]]
        return {**document, "scopes": in_use}

    async def shows(self, number: int, seconds: float = 5) -> None:
        """Return once its status has so many in flight.

        Raises AssertionError with the status if that never comes.
        """
        await until(lambda: self.status()["in_flight"] == number, seconds, self.status)

    async def settled(self, seconds: float = 5) -> None:
        """Return once nothing is in flight. Raises AssertionError with the status if that never comes."""
        await self.shows(0, seconds)


def _sdk_options(key: str) -> dict[str, Any]:
    return {"api_key": key, "default_headers": {CALLER: caller(key)}, "max_retries": 0, "timeout": 30}
