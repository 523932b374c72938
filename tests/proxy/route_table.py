"""The routes of the proxy, each with a request that the provider holds, as docs/reference.md lists them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.rig.config import Config, deployment
from tests.rig.litellm_version import Ability
from tests.rig.provider_routes import UNNAMED

GATED = "openai/gated"
ANTHROPIC = "anthropic/gated"
GEMINI = "gemini/gated"

_SAID = [{"role": "user", "content": "hi"}]
_CONTENTS = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}
_WAV = {"file": ("one.wav", b"RIFF", "audio/wav")}
_PNG = {"image": ("one.png", b"\x89PNG\r\n\x1a\n", "image/png")}
_TEXT = {"file": ("one.txt", b"hi", "text/plain")}
_OPENAI = {"custom_llm_provider": "openai"}
_BATCH = {"input_file_id": "file-1", "endpoint": "/v1/chat/completions", "completion_window": "24h"}

PROVIDERS = ("openai", "anthropic", "gemini", "cohere", "mistral")


@dataclass(frozen=True)
class Row:
    """A route: a request there, and the model that it is counted by, None if by none.

    `shape` is where the message of its refusal stands, `since` the first LiteLLM we know to tell callbacks
    there who asks, if it is not all, and `provider_model` what the provider takes for the request's model.
    """

    name: str
    method: str
    path: str
    request: Mapping[str, Any] = field(hash=False)
    model: str | None = GATED
    shape: tuple[str, ...] = ("error", "message")
    since: str = ""
    provider_model: str = "gated"

    def __str__(self) -> str:
        return self.name

    @property
    def needs(self) -> Ability | None:
        """What LiteLLM must be able to do."""
        return Ability(self.since, f"callbacks are told of {self.path}") if self.since else None

    async def ask(self, client: httpx.AsyncClient) -> httpx.Response:
        """Send the request, with the key also where Google's clients have it."""
        _, _, one = client.headers["authorization"].partition(" ")
        return await client.request(self.method, self.path, headers={"x-goog-api-key": one}, **self.request)

    def message(self, refusal: httpx.Response) -> str:
        """Return what a refusal of this route says."""
        found: Any = refusal.json()
        for name in self.shape:
            found = found[name]
        return str(found)


def _post(name: str, path: str, model: str | None = GATED, **said: Any) -> Row:
    """A route that takes JSON and names its model there."""
    how = {name: said.pop(name) for name in ("shape", "since") if name in said}
    body = {"model": model, **said} if model else said
    return Row(name, "POST", path, {"json": body}, model, **how)


def _form(name: str, path: str, files: Mapping[str, Any], **fields: str) -> Row:
    """A route that takes a form with a file, and names its model there."""
    return Row(name, "POST", path, {"data": {"model": GATED, **fields}, "files": files})


def _without(name: str, method: str, path: str, **more: Any) -> Row:
    """A route about something the provider keeps: no model is named."""
    since = more.pop("since", "")
    return Row(name, method, path, more, None, since=since, provider_model=UNNAMED)


ROWS = (
    _post("chat", "/v1/chat/completions", messages=_SAID),
    _post("chat, deployment in the path", f"/openai/deployments/{GATED}/chat/completions", messages=_SAID),
    _post("completions", "/v1/completions", prompt="hi"),
    _post("embeddings", "/v1/embeddings", input="hi"),
    _post("responses", "/v1/responses", input="hi"),
    _post("responses, background without polling", "/v1/responses", input="hi", background=True),
    _post("responses compact", "/v1/responses/compact", input="hi", since="1.90"),
    _post("messages", "/v1/messages", ANTHROPIC, messages=_SAID, max_tokens=9),
    _post("messages, of an OpenAI model", "/v1/messages", messages=_SAID, max_tokens=9),
    Row(
        "generateContent",
        "POST",
        f"/v1beta/models/{GEMINI}:generateContent",
        {"json": _CONTENTS},
        GEMINI,
        since="1.90",
    ),
    Row(
        "streamGenerateContent",
        "POST",
        f"/v1beta/models/{GEMINI}:streamGenerateContent",
        {"json": _CONTENTS},
        GEMINI,
        since="1.90",
    ),
    _post("images generations", "/v1/images/generations", prompt="hi"),
    _form("images edits", "/v1/images/edits", _PNG, prompt="hi"),
    _post("audio speech", "/v1/audio/speech", input="hi", voice="alloy", shape=("detail",)),
    _form("audio transcriptions", "/v1/audio/transcriptions", _WAV),
    _post("moderations", "/v1/moderations", input="hi"),
    _post("rerank", "/v1/rerank", "cohere/gated", query="hi", documents=["a", "b"]),
    _post("ocr", "/v1/ocr", "mistral/gated", document={"type": "document_url", "document_url": "http://a/b"}),
    _post("videos", "/v1/videos", prompt="hi"),
    Row(
        "realtime client secrets",
        "POST",
        "/v1/realtime/client_secrets",
        {"json": {"model": GATED, "session": {"type": "realtime"}}},
        since="1.90",
        provider_model=UNNAMED,
    ),
    _post("pass-through, model in the body", "/through", "gated", question="hi"),
    _without("pass-through, no model", "POST", "/through", json={"question": "hi"}),
    _post("provider pass-through, openai", "/openai/v1/chat/completions", "gated", messages=_SAID),
    _post(
        "provider pass-through, anthropic", "/anthropic/v1/messages", "gated", messages=_SAID, max_tokens=9
    ),
    Row(
        "provider pass-through, gemini",
        "POST",
        "/gemini/v1beta/models/gated:generateContent",
        {"json": _CONTENTS},
        "gated",
    ),
    _post(
        "router model pass-through, vllm",
        "/vllm/v1/chat/completions",
        "vllm",
        messages=_SAID,
        shape=("detail",),
        since="1.106",
    ),
    _post(
        "rag query",
        "/v1/rag/query",
        messages=_SAID,
        retrieval_config={"vector_store_id": "vs_ok", **_OPENAI},
        shape=("detail",),
        since="1.90",
    ),
    _without(
        "files, create",
        "POST",
        "/v1/files",
        data={"purpose": "assistants", **_OPENAI},
        files=_TEXT,
        since="1.94",
    ),
    _without("files, get", "GET", "/v1/files/file-1"),
    _without("files, list", "GET", "/v1/files"),
    _without("batches, create", "POST", "/v1/batches", json={**_BATCH, **_OPENAI}),
    _without("batches, get", "GET", "/v1/batches/batch_1"),
    Row(
        "vector stores, search",
        "POST",
        "/v1/vector_stores/vs_gated/search",
        {"json": {"query": "hi", **_OPENAI}},
        model=None,
    ),
    _without("containers, create", "POST", "/v1/containers", json={"name": "one", **_OPENAI}, since="1.90"),
)

UNCOUNTED = (
    _without("models", "GET", "/v1/models"),
    _without("model info", "GET", "/v1/model/info"),
    _without("liveliness", "GET", "/health/liveliness"),
    _without("health", "GET", "/health", params={"model": "steady"}),
    _without("token counter", "POST", "/utils/token_counter", json={"model": "openai/ok", "messages": _SAID}),
    _without(
        "count tokens", "POST", "/v1/messages/count_tokens", json={"model": "anthropic/ok", "messages": _SAID}
    ),
    _without("tools", "GET", "/mcp-rest/tools/list"),
)
"""What no limit holds: no hook of LiteLLM's is called there."""


def settings(provider: str) -> Config:
    """Return what `config` takes for a proxy with every route."""
    through = {"path": "/through", "target": f"{provider}/anything", "forward_headers": True}
    return {
        "models": [
            *(_wildcard(api, provider) for api in ("gemini", "cohere", "mistral")),
            deployment("vllm", "hosted_vllm/gated", provider, api_base=provider),
            deployment("openai/calls-tool", "openai/calls-tool", provider),
        ],
        "general_settings": {"pass_through_endpoints": [through]},
    }


def sections(provider: str) -> Config:
    """Return the sections of the configuration that such a proxy has beside those of the rig."""
    openai = {"custom_llm_provider": "openai", "api_base": f"{provider}/v1", "api_key": "unused"}
    mcp = {"url": f"{provider}/mcp", "transport": "http", "allow_all_keys": True}
    return {"files_settings": [openai], "mcp_servers": {"rig": mcp}}


def environment(provider: str) -> dict[str, str]:
    """Return what tells LiteLLM where the providers are whose routes name no model."""
    keys = {f"{name.upper()}_API_KEY": "unused" for name in PROVIDERS}
    bases = {"ANTHROPIC_API_BASE": provider, "GEMINI_API_BASE": provider, "OPENAI_BASE_URL": f"{provider}/v1"}
    return {**keys, **bases, "OPENAI_API_BASE": provider}


def _wildcard(api: str, provider: str) -> Config:
    bases = {"gemini": provider, "cohere": f"{provider}/v1/rerank", "mistral": f"{provider}/v1"}
    return {
        "model_name": f"{api}/*",
        "litellm_params": {"model": f"{api}/*", "api_base": bases[api], "api_key": "unused"},
    }
