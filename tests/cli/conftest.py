"""A command line without this machine's environment, and a proxy that answers as it is told."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from click.testing import CliRunner, Result

from litellm_parallel_limits.cli import main

KEY = "sk-of-the-command-line"
CONFIGURING = ("LITELLM_", "REDIS_", "NUM_WORKERS", "WEB_CONCURRENCY", "STORE_MODEL_IN_DB", "COLUMNS")

Run = Callable[..., Result]


@dataclass
class FakeProxy:
    """Answers each route with what stands in `answers`: a code and a document, or a text that is none."""

    url: str = ""
    answers: dict[str, tuple[int, Any]] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, list[str]], Any]] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)

    def pages(self, query: dict[str, list[str]]) -> dict[str, Any]:
        """Return the page of `status` that is asked for."""
        _, document = self.answers["status"]
        page, size = int(query.get("page", ["1"])[0]), int(query["page_size"][0])
        scopes = document["scopes"]
        shown = scopes[(page - 1) * size : page * size]
        paging = {"page": page, "page_size": size, "total_pages": -(-len(scopes) // size)}
        return {**document, **paging, "total": len(scopes), "scopes": shown}


class _Handler(BaseHTTPRequestHandler):
    proxy: FakeProxy

    def do_GET(self) -> None:
        self._answer(None)

    def do_POST(self) -> None:
        self._answer(json.loads(self.rfile.read(int(self.headers["content-length"]))))

    def _answer(self, body: Any) -> None:
        parts = urlsplit(self.path)
        route, query = parts.path.removeprefix("/parallel_limits/"), parse_qs(parts.query)
        self.proxy.asked.append((route, query, body))
        self.proxy.keys.add(self.headers["authorization"])
        code, document = self.proxy.answers.get(route, (404, {"detail": "Not Found"}))
        if route == "status" and isinstance(document, dict) and isinstance(document.get("scopes"), list):
            document = self.proxy.pages(query)
        content = document if isinstance(document, str) else json.dumps(document)
        self.send_response(code)
        self.end_headers()
        self.wfile.write(content.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    request_queue_size = 64  # a burst comes at once


@pytest.fixture
def fake_proxy() -> Iterator[FakeProxy]:
    """A proxy that has no routes yet."""
    proxy = FakeProxy()
    handler = type("_Handler", (_Handler,), {"proxy": proxy})
    with _Server(("127.0.0.1", 0), handler) as server:
        proxy.url = f"http://127.0.0.1:{server.server_port}"
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield proxy
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(CONFIGURING):
            monkeypatch.delenv(name)
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def run() -> Run:
    """Return a function that runs a command, with these variables in its environment."""

    def run(*arguments: str, stdin: str | None = None, **env: str) -> Result:
        return CliRunner().invoke(main, arguments, input=stdin, env=env)

    return run


@pytest.fixture
def ask(run: Run, fake_proxy: FakeProxy) -> Run:
    """Return a function that runs a command with the fake proxy's address and a key."""

    def ask(*arguments: str, stdin: str | None = None, **env: str) -> Result:
        known = {"LITELLM_PROXY_URL": fake_proxy.url, "LITELLM_PROXY_API_KEY": KEY}
        return run(*arguments, stdin=stdin, **{**known, **env})

    return ask
