"""LiteLLM's proxy within this process, without its server: what its hooks cost, and ours beside them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.rig.config import MASTER_KEY, PLUGIN
from tests.rig.process import HOST

MODEL = "gpt-4o"
PLENTY = 1_000_000
"""Room in every limit: what is measured is admitted."""

Config = dict[str, Any]


@dataclass(frozen=True)
class Inside:
    """The limiters of a proxy: LiteLLM's hook object and our callback; its cache of keys, and its router."""

    theirs: Any
    ours: Any
    keys: Any
    router: Any


def config(*, store: str = "auto", redis_port: int | None = None) -> Config:
    """Return the configuration of a proxy with one limit for a model, beside those that its keys bring."""
    limits = [{"name": "pool", "max_parallel_requests": PLENTY, "models": [MODEL]}]
    redis = {"cache": True, "cache_params": {"type": "redis", "host": HOST, "port": redis_port}}
    mock = {"model": f"openai/{MODEL}", "api_key": "unused", "mock_response": "Hello."}
    return {
        "model_list": [
            {"model_name": name, "litellm_params": mock, "model_info": {"id": name}}
            for name in (MODEL, "unlimited")
        ],
        "litellm_settings": {
            "callbacks": [PLUGIN],
            "parallel_limits": {"store": store, "limits": limits},
            **(redis if redis_port else {}),
        },
        "general_settings": {"master_key": MASTER_KEY},
    }


@asynccontextmanager
async def inside(told: Config, folder: Path) -> AsyncIterator[Inside]:
    """Start the proxy as its server would. There is one in a process, and it is not started again."""
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(told))
    os.environ |= {"CONFIG_FILE_PATH": str(file), "LITELLM_LOCAL_MODEL_COST_MAP": "true"}
    import litellm  # noqa: PLC0415 (reads the environment)
    from litellm.proxy import proxy_server  # noqa: PLC0415 (the same)

    async with proxy_server.app.router.lifespan_context(proxy_server.app):
        [ours] = [one for one in litellm.callbacks if type(one).__name__ == "ParallelLimits"]
        theirs = proxy_server.proxy_logging_obj.get_proxy_hook("parallel_request_limiter")
        yield Inside(theirs, ours, proxy_server.user_api_key_cache, proxy_server.llm_router)
