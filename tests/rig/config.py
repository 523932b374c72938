"""The configuration of a proxy.

`openai/*` and `anthropic/*` go to the provider, so that a request chooses what the provider does by the
model it asks for. Beside them there are models for what the router does:

    flaky, claude-flaky            fails, and falls back to steady, claude-steady
    stubborn, claude-stubborn      fails, and is tried three times
    impatient, claude-impatient    hangs, and is given up after half a second
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tests.rig.litellm_version import PACKAGES
from tests.rig.process import HOST

Config = dict[str, Any]

PLUGIN = ("litellm_parallel_limits" if PACKAGES else "parallel_limits_shim") + ".proxy_handler_instance"
CALLBACKS = ("rig_callbacks.before", PLUGIN, "rig_callbacks.after")
MASTER_KEY = "sk-rig-8f2c55e1b7d94a60"
PATIENCE = 0.5
"""Seconds until an impatient model is given up."""

RETRIES = 2

STREAMED = ("ok", "gated-half", "reset", "slow-first", "slow-stream")
"""These have deployments of their own: of a model it does not know LiteLLM fakes the responses' stream."""


def config(
    provider: str,
    *,
    redis_port: int | None = None,
    cache_params: Mapping[str, Any] | None = None,
    callbacks: Sequence[str] = CALLBACKS,
    models: Sequence[Mapping[str, Any]] = (),
    litellm_settings: Mapping[str, Any] | None = None,
    router_settings: Mapping[str, Any] | None = None,
    general_settings: Mapping[str, Any] | None = None,
) -> Config:
    """Return the configuration of a proxy that asks the provider at the URL `provider`.

    Answers are cached, in Redis where there is one, for those requests that ask for it with
    `{"cache": {"use-cache": true}}`. Which Redis is said by `redis_port`, or by LiteLLM's own
    `cache_params`. The settings given are added to those of the rig.
    """
    return {
        "model_list": [*_models(provider), *models],
        "litellm_settings": {
            "callbacks": list(callbacks),
            "cache": True,
            "cache_params": _cache(redis_port, cache_params),
            **(litellm_settings or {}),
        },
        "router_settings": {
            "num_retries": 0,
            "disable_cooldowns": True,  # a model that is to fail must not be set aside for it
            "fallbacks": [{"flaky": ["steady"]}, {"claude-flaky": ["claude-steady"]}],
            **(router_settings or {}),
        },
        "general_settings": {
            "master_key": MASTER_KEY,
            "custom_auth": "rig_auth.authenticate",
            "forward_client_headers_to_llm_api": True,  # tells the provider who calls
            **(general_settings or {}),
        },
    }


def deployment(name: str, model: str, provider: str, **litellm_params: object) -> Config:
    """Return a deployment of the model `name`, which the provider knows as `model`, e.g. `openai/ok`."""
    base = provider if model.startswith("anthropic/") else f"{provider}/v1"
    params = {"model": model, "api_base": base, "api_key": "unused", "max_retries": 0, **litellm_params}
    return {"model_name": name, "litellm_params": params}


def _models(provider: str) -> list[Config]:
    return [*_models_of("openai", "", provider), *_models_of("anthropic", "claude-", provider)]


def _models_of(api: str, prefix: str, provider: str) -> list[Config]:
    models: list[tuple[str, str, dict[str, Any]]] = [
        (f"{prefix}flaky", "error-500", {}),
        (f"{prefix}steady", "ok", {}),
        (f"{prefix}stubborn", "error-500", {"num_retries": RETRIES}),
        (f"{prefix}impatient", "hang", {"timeout": PATIENCE}),
        *((f"{api}/{behaviour}", behaviour, {}) for behaviour in ("*", *STREAMED)),
    ]
    return [deployment(name, f"{api}/{model}", provider, **params) for name, model, params in models]


def _cache(redis_port: int | None, cache_params: Mapping[str, Any] | None) -> Config:
    if cache_params is not None:
        return {"type": "redis", "mode": "default_off", **cache_params}
    if redis_port is None:
        return {"type": "local", "mode": "default_off"}
    return {"type": "redis", "mode": "default_off", "host": HOST, "port": redis_port}
