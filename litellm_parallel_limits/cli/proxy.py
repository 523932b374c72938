"""A LiteLLM proxy, as the commands ask it."""

from __future__ import annotations

import json
from typing import Any

import click
import httpx

from litellm_parallel_limits.cli.exits import KeyRefusedError, NotAnsweredError, NothingThereError
from litellm_parallel_limits.cli.text import plain

TIMEOUT_SECONDS = 10.0
"""For each step of a call. Ours: a status over a slow store takes a fraction of a second."""

LONGEST_TOLD = 300
"""Characters of a proxy's error that are shown."""

UNROUTED = "Not Found"
"""What FastAPI says where there is no such route."""

NOT_FOUND, UNFIT = 404, frozenset({400, 422})
REFUSING = frozenset({401, 403})


class Proxy:
    """The routes of the plugin in the proxy at `url`, asked with `key`, which is in no message."""

    def __init__(self, url: str, key: str) -> None:
        self.url = url.rstrip("/")
        self._key = key
        headers = {"authorization": f"Bearer {key}"}
        self._client = httpx.Client(headers=headers, timeout=TIMEOUT_SECONDS)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def get(self, route: str, **parameters: Any) -> Any:
        """Return the document at `route`. Raises NotAnsweredError."""
        return self._ask("GET", route, params={k: v for k, v in parameters.items() if v is not None})

    def post(self, route: str, body: dict[str, str]) -> Any:
        """Return what the proxy answers to `body`. Raises NotAnsweredError, or NothingThereError."""
        return self._ask("POST", route, json=body)

    def _ask(self, method: str, route: str, **what: Any) -> Any:
        try:
            reply = self._client.request(method, f"{self.url}/parallel_limits/{route}", **what)
        except httpx.TimeoutException:
            raise NotAnsweredError(f"{self.url} does not answer in {TIMEOUT_SECONDS:.0f} s.") from None
        except httpx.HTTPError as error:
            raise NotAnsweredError(f"{self.url} is not reached: {self._shown(str(error))}") from None
        document = _document(reply)
        if not reply.is_success:
            told = self._shown(_told(document))
            if reply.status_code == NOT_FOUND and method == "POST" and told not in {"", UNROUTED}:
                raise NothingThereError(told)
            raise self._failure(reply.status_code, told and f": {told}")
        if not isinstance(document, dict):
            raise NotAnsweredError(f"{self.url} answers no JSON: is it a LiteLLM proxy?")
        return document

    def _failure(self, code: int, told: str) -> click.ClickException:
        if code in REFUSING:
            return KeyRefusedError(f"{self.url} refuses the key ({code}){told}")
        if code == NOT_FOUND:
            return NotAnsweredError(
                f"{self.url} has no parallel limits: is the plugin in litellm_settings.callbacks?"
            )
        if code in UNFIT:
            return click.UsageError(f"{self.url} cannot answer that ({code}){told}")
        return NotAnsweredError(f"{self.url} answers {code}{told}")

    def _shown(self, text: str) -> str:
        shown = plain(" ".join(text.replace(self._key, "…").split()))
        return shown if len(shown) <= LONGEST_TOLD else shown[: LONGEST_TOLD - 1] + "…"


def _document(reply: httpx.Response) -> Any:
    try:
        return json.loads(reply.content)
    except (ValueError, RecursionError):
        return None


def _told(document: Any) -> str:
    """Return what an error says, in FastAPI's shape or in LiteLLM's, nothing if there is no such word."""
    told = document
    for name in ("error", "detail", "message"):
        told = told.get(name, told) if isinstance(told, dict) else told
    return told if isinstance(told, str) else json.dumps(told) if told else ""
