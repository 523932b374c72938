"""The routes of the proxy that ask a model, and a body for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Route:
    """A route: its path, what a request has beside the model, and the API its model belongs to.

    `asks` names the field of `body` that no request can miss.
    """

    name: str
    path: str
    asks: str
    body: Mapping[str, Any] = field(hash=False)
    api: str = "openai"
    streams: bool = True

    def upstream(self, behaviour: str) -> str:
        """Return the model with which the provider behaves so."""
        return f"{self.api}/{behaviour}"

    def routed(self, name: str) -> str:
        """Return the model `name` of those that the router does something with."""
        return f"claude-{name}" if self.api == "anthropic" else name

    def request(self, behaviour: str, *, stream: bool = False) -> dict[str, Any]:
        """Return the body that asks the provider's model `behaviour`."""
        return self.request_to(self.upstream(behaviour), stream=stream)

    def request_to(self, model: str, *, stream: bool = False, **fields: Any) -> dict[str, Any]:
        """Return the body that asks `model`, with `fields`, of which None leaves one out."""
        body = {"model": model, **self.body, "stream": stream or None, **fields}
        return {name: value for name, value in body.items() if value is not None}


def _messages(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


# Every route has a question of its own: LiteLLM's cache does not tell their answers apart.
CHAT = Route("chat", "/v1/chat/completions", "messages", {"messages": _messages("chat?")})
COMPLETIONS = Route("completions", "/v1/completions", "prompt", {"prompt": "completions?"})
EMBEDDINGS = Route("embeddings", "/v1/embeddings", "input", {"input": "embeddings?"}, streams=False)
RESPONSES = Route("responses", "/v1/responses", "input", {"input": "responses?"})
MESSAGES = Route(
    "messages",
    "/v1/messages",
    "messages",
    {"messages": _messages("messages?"), "max_tokens": 9},
    api="anthropic",
)

ROUTES = {route.name: route for route in (CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES, MESSAGES)}
