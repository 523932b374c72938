"""Whether LiteLLM's configuration names a Redis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from litellm_parallel_limits.model_info import SECTION
from litellm_parallel_limits.tables import table

VARIABLES = ("REDIS_URL", "REDIS_HOST", "REDIS_CLUSTER_NODES", "REDIS_SENTINEL_NODES")
"""From which LiteLLM makes itself a Redis connection."""

NO_REDIS = (
    f"{SECTION}.store: redis, but LiteLLM has no Redis; allowed: auto, host, memory, or redis beside "
    "litellm_settings.cache_params, router_settings.redis_host or general_settings.coordination_redis"
)
"""What is said where one is asked for and none is named."""


def names_redis(config: Mapping[str, Any], environment: Mapping[str, str]) -> bool:
    """Whether the plugin would find one in it, as its choice of a store looks for it."""
    litellm, router = table(config.get("litellm_settings")), table(config.get("router_settings"))
    return (
        any(name in environment for name in VARIABLES)
        or (bool(litellm.get("cache")) and table(litellm.get("cache_params")).get("type", "redis") == "redis")
        or "redis_url" in router
        or {"redis_host", "redis_port"} <= router.keys()
        or bool(table(config.get("general_settings")).get("coordination_redis"))
    )
