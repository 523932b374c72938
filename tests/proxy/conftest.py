"""A proxy with limits of the operator's, on Redis, with two workers."""

from __future__ import annotations

import pytest

from tests.conftest import StartProxy
from tests.rig.config import deployment
from tests.rig.provider import Provider
from tests.rig.proxy import Proxy
from tests.rig.redis_server import RedisServer

LIMITS = [
    {"name": "gpu-box", "models": ["llama-*"], "by": [], "max_parallel_requests": 3},
    {
        "name": "research",
        "where": {"team": ["research-*"]},
        "by": ["team", "model"],
        "max_parallel_requests": "2",
    },
    {"name": "customer", "where": {"team": "shop"}, "by": ["end_user"], "max_parallel_requests": 1},
    {"name": "closed", "models": ["*-retired"], "max_parallel_requests": 0},
    {
        "name": "watched",
        "where": {"user": "watched-*"},
        "by": ["user"],
        "max_parallel_requests": 1,
        "mode": "observe",
    },
]

MODELS = ("gpt-4", "gpt-3.5-turbo", "llama-70b", "llama-8b", "gpt-3-retired")


@pytest.fixture(scope="session")
def operator_proxy(start_proxy: StartProxy, provider: Provider, redis_server: RedisServer) -> Proxy:
    """A proxy of two workers on Redis, whose models wait at the provider's gate."""
    return start_proxy(
        workers=2,
        redis_port=redis_server.port,
        models=[deployment(name, f"openai/gated:{name}", provider.url) for name in MODELS],
        litellm_settings={"parallel_limits": {"limits": LIMITS}},
        router_settings={"model_group_alias": {"gpt-4-alias": "gpt-4"}},
    )
