"""Which store a worker of the proxy keeps its leases in."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from litellm.proxy import proxy_server

from litellm_parallel_limits.connections import own_client
from litellm_parallel_limits.errors import ConfigurationError
from litellm_parallel_limits.host_file import host_file
from litellm_parallel_limits.logs import logger
from litellm_parallel_limits.model_info import SECTION
from litellm_parallel_limits.redis_named import NO_REDIS, names_redis
from litellm_parallel_limits.settings import Settings
from litellm_parallel_limits.siblings import has_siblings, workers
from litellm_parallel_limits.stores import Store, host
from litellm_parallel_limits.stores.exchange import Backend
from litellm_parallel_limits.stores.host import HostBackend
from litellm_parallel_limits.stores.memory import MemoryStore
from litellm_parallel_limits.stores.redis import ROOT, RedisBackend
from litellm_parallel_limits.stores.shared import SharedStore
from litellm_parallel_limits.stores.timed import Tell, Timed


def check(settings: Settings, config: Mapping[str, Any], environment: Mapping[str, str]) -> None:
    """Raise ConfigurationError where the store that is asked for cannot be; warn of one that divides."""
    if settings.store == "redis" and not names_redis(config, environment):
        raise ConfigurationError(NO_REDIS)
    if settings.host_path is not None:
        _check_file(settings.host_path)
    if settings.store == "memory" and has_siblings(environment):
        logger.warning(
            "Parallel limits: store is memory, but this proxy has several workers: each counts alone, and "
            "each limit holds once for every worker; store: auto, host or redis counts them together"
        )


def choose(
    settings: Settings, worker: str, environment: Mapping[str, str], tell: Tell | None = None
) -> Store:
    """Return the store of this worker; it tells how long its calls take, if somebody wants to know.

    LiteLLM must have its Redis by now, if it is to have one.
    """
    backend = _backend(settings, environment)
    if backend is None:
        return MemoryStore(ttl=settings.lease_ttl)
    return SharedStore(
        backend if tell is None else Timed(backend, tell),
        worker=worker,
        ttl=settings.lease_ttl,
        timeout=settings.store_timeout_ms / 1000,
        workers=workers(environment),
    )


def _backend(settings: Settings, environment: Mapping[str, str]) -> Backend | None:
    cache = _redis_cache() if settings.store in {"auto", "redis"} else None
    if cache is not None:
        try:
            return _redis(cache, settings)
        except Exception as error:  # noqa: BLE001 (LiteLLM's; no request may fail for it)
            logger.error("Parallel limits: no client for LiteLLM's Redis, workers count without: %s", error)
    if settings.store == "redis":
        logger.error("Parallel limits: store is redis, but LiteLLM has none; its workers count without it")
    if settings.store == "host" or (settings.store != "memory" and has_siblings(environment)):
        return _host(settings)
    return None


def _redis(cache: Any, settings: Settings) -> Backend:
    namespace = getattr(cache, "namespace", None)
    prefix = f"{namespace}:" if namespace else ""
    connect = partial(
        own_client, cache.redis_kwargs, key=prefix + ROOT, timeout=settings.store_timeout_ms / 1000
    )
    return RedisBackend(connect(), connect(), ttl=settings.lease_ttl, prefix=prefix)


def _host(settings: Settings) -> Backend | None:
    timeout = settings.store_timeout_ms / 1000
    if settings.host_path is not None:
        return HostBackend(settings.host_path, ttl=settings.lease_ttl, timeout=timeout)
    try:
        return HostBackend(host_file(), ttl=settings.lease_ttl, timeout=timeout, prepare=host_file)
    except OSError as error:
        logger.error("Parallel limits: no place for a file, so each worker counts alone: %s", error)
        return None


def _check_file(path: Path) -> None:
    try:
        host.check(path)
    except (OSError, sqlite3.Error) as error:
        raise ConfigurationError(
            f"{SECTION}.host_path: {path}: {error}; allowed: a file on this machine that the proxy may write"
        ) from error


def _redis_cache() -> Any:
    """Return LiteLLM's Redis cache: the proxy's, else the router's, else None."""
    router_cache = getattr(proxy_server.llm_router, "cache", None)
    return getattr(proxy_server, "redis_usage_cache", None) or getattr(router_cache, "redis_cache", None)
