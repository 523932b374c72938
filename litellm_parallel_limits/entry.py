"""The plugin, built into the LiteLLM proxy that loads it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from litellm._redis import get_redis_async_client, get_redis_connection_pool
from litellm.integrations.custom_logger import CustomLogger
from litellm.proxy import proxy_server

from litellm_parallel_limits import status
from litellm_parallel_limits.errors import ConfigurationError
from litellm_parallel_limits.events import Event, InvalidLimit
from litellm_parallel_limits.groups import group
from litellm_parallel_limits.hold_times import HoldTimes
from litellm_parallel_limits.limiter import Limiter
from litellm_parallel_limits.logs import Log, logger
from litellm_parallel_limits.middleware import HolderMiddleware
from litellm_parallel_limits.plugin import ParallelLimits
from litellm_parallel_limits.routes import router
from litellm_parallel_limits.settings import SECTION, Settings, read
from litellm_parallel_limits.stores import Store
from litellm_parallel_limits.stores.memory import MemoryStore

_REDIS_VARIABLES = ("REDIS_URL", "REDIS_HOST", "REDIS_CLUSTER_NODES", "REDIS_SENTINEL_NODES")
"""From which LiteLLM makes itself a Redis connection."""


def build() -> CustomLogger:
    """Return the callback for the running proxy, and give every request of the proxy a holder.

    Raises ConfigurationError, which stops the proxy's start.
    """
    config = proxy_server.proxy_config.get_config_state()
    settings = read(_table(config.get("litellm_settings")).get(SECTION), os.environ)
    if not settings.enabled:
        return CustomLogger()
    if settings.store == "redis" and not _names_redis(config, os.environ):
        raise ConfigurationError(
            f"{SECTION}.store: redis, but LiteLLM has no Redis; allowed: auto, memory, or redis beside "
            "litellm_settings.cache_params, router_settings.redis_host or general_settings.coordination_redis"
        )
    _warn_of_lone_workers(settings, config)
    proxy = _Proxy(settings)
    _wrap(proxy_server.app)
    proxy_server.app.include_router(router(proxy.status))
    return proxy.plugin


class _Proxy:
    """The parts of the plugin, put together for one worker of the proxy."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._hold_times = HoldTimes()
        self._observers: tuple[Callable[[Event], None], ...] = (self._hold_times, Log())
        self.plugin = ParallelLimits(
            settings.policy(lambda source: self._observe(InvalidLimit(source))),
            limiter=lambda: self.limiter,
            hold_times=self._hold_times,
            group=lambda name: group(proxy_server.llm_router, name),
        )

    @cached_property
    def limiter(self) -> Limiter:
        """The worker's limiter, on LiteLLM's Redis where there is one by the time it is needed."""
        worker = secrets.token_hex(4)
        store = self._store(worker)
        return Limiter(store, ttl=self._settings.lease_ttl, worker=worker, observer=self._observe)

    async def status(self) -> status.Document:
        """Return what is in flight."""
        return status.document(
            await self.limiter.snapshot(),
            store=self.limiter.store.name,
            ttl=self._settings.lease_ttl,
            degraded=self.limiter.degraded,
        )

    def _store(self, worker: str) -> Store:
        settings = self._settings
        cache = None if settings.store == "memory" else _redis_cache()
        if cache is None:
            if settings.store == "redis":
                logger.error(
                    "Parallel limits: store is redis, but LiteLLM has none; each worker counts alone"
                )
            return MemoryStore(ttl=settings.lease_ttl)
        from litellm_parallel_limits.stores.redis import RedisStore  # noqa: PLC0415 (redis is optional)

        namespace = getattr(cache, "namespace", None)
        return RedisStore(
            _own_client(cache),
            worker=worker,
            ttl=settings.lease_ttl,
            timeout=settings.store_timeout_ms / 1000,
            prefix=f"{namespace}:" if namespace else "",
            workers=_workers_of_this_proxy(os.environ),
        )

    def _observe(self, event: Event) -> None:
        for observer in self._observers:
            observer(event)


def _redis_cache() -> Any:
    """Return LiteLLM's Redis cache: the proxy's, else the router's, else None."""
    router_cache = getattr(proxy_server.llm_router, "cache", None)
    return getattr(proxy_server, "redis_usage_cache", None) or getattr(router_cache, "redis_cache", None)


def _warn_of_lone_workers(settings: Settings, config: Mapping[str, Any]) -> None:
    workers = _workers_of_this_proxy(os.environ)
    if workers > 1 and (settings.store == "memory" or not _names_redis(config, os.environ)):
        logger.warning(
            "Parallel limits: %s workers without a Redis count alone, so each limit holds up to %s times; "
            "give LiteLLM a Redis (litellm_settings.cache_params)",
            workers,
            workers,
        )


def _own_client(cache: Any) -> Any:
    """Return a client with LiteLLM's settings but connections of its own, free of LiteLLM's own calls."""
    pool = get_redis_connection_pool(**cache.redis_kwargs)
    return get_redis_async_client(connection_pool=pool, **cache.redis_kwargs)


def _workers_of_this_proxy(environment: Mapping[str, str]) -> int:
    """Return how many workers this proxy runs: LiteLLM sets NUM_WORKERS, servers read WEB_CONCURRENCY."""
    told = (environment.get(name, "") for name in ("NUM_WORKERS", "WEB_CONCURRENCY"))
    return max([1, *(int(number) for number in told if number.isdecimal())])


def _names_redis(config: Mapping[str, Any], environment: Mapping[str, str]) -> bool:
    """Whether LiteLLM's configuration names a Redis, of which there is no connection yet at load."""
    return (
        any(name in environment for name in _REDIS_VARIABLES)
        or "redis" in str(_table(_table(config.get("litellm_settings")).get("cache_params")).get("type"))
        or any(name.startswith("redis_") for name in _table(config.get("router_settings")))
        or bool(_table(config.get("general_settings")).get("coordination_redis"))
    )


def _wrap(app: Any) -> None:
    """Give every request a holder. LiteLLM loads callbacks when its middleware is already built."""
    if app.middleware_stack is None:
        app.add_middleware(HolderMiddleware)
    elif not isinstance(app.middleware_stack, HolderMiddleware):
        app.middleware_stack = HolderMiddleware(app.middleware_stack)


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
