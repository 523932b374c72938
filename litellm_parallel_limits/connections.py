"""Connections of our own to LiteLLM's Redis, which are made anew when it fails."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

from litellm._redis import get_redis_async_client, get_redis_connection_pool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError

from litellm_parallel_limits.background import start

STEP_SECONDS = 1.0
"""For each step of connecting: reaching a server, its greeting, asking a sentinel or node who is who. A
machine that is gone answers nothing at all, and the next one is asked only then."""

ATTEMPT_SECONDS = 15.0
"""For all steps together, where a version of LiteLLM does not hand on the time for each."""

PAUSE_SECONDS = 0.05
"""After connecting failed, until it is tried again: looking through a Cluster keeps the event loop busy."""

MOST_CONNECTIONS = 50
"""Far above what we use, so that LiteLLM's own bound (`max_connections`) never makes us wait, or fail."""

Script = Callable[[Sequence[str], Sequence[str | int]], Awaitable[Any]]


def own_client(settings: Mapping[str, Any], *, key: str, timeout: float) -> OwnClient:
    """Return a client with LiteLLM's settings, the `redis_kwargs` of its cache, for keys that hash as `key`.

    Whoever calls it waits no longer than `timeout` seconds.
    """
    ours = {
        **settings,
        "health_check_interval": 0,  # redis-py 5 never returns from it when the server hangs
        "max_connections": MOST_CONNECTIONS,
        "socket_connect_timeout": STEP_SECONDS,
        "socket_timeout": max(STEP_SECONDS, 2 * timeout),  # the caller's time is up first
    }
    return OwnClient(partial(_client, ours), key)


class OwnClient:
    """A `redis.asyncio` client, single, behind Sentinel, or of a Cluster, for keys that hash as `key`.

    After a call that failed, or that its caller gave up, all is made anew before the next one: where the
    master is now, and a connection to it. That goes on when the callers' time is up. Else a server
    that is slow to reach would never be reached, and a machine that is gone never be given up.
    """

    def __init__(self, make: Callable[[], Any], key: str) -> None:
        self._make = make
        self._client = make()
        self._key = key
        self._is_connected = False
        self._connecting: asyncio.Task[None] | None = None

    def register_script(self, script: str) -> Script:
        """Return `script` as a callable: sent by its hash, and in full where Redis does not know it."""
        sha = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()

        async def run(keys: Sequence[str], args: Sequence[str | int]) -> Any:
            try:
                return await self._do("evalsha", sha, len(keys), *keys, *args)
            except NoScriptError:  # not SCRIPT LOAD: on a Cluster that fails if any of its masters is gone
                return await self._do("eval", script, len(keys), *keys, *args)

        return run

    async def zrange(self, name: str, start: int, end: int) -> Any:
        """Return members of a sorted set."""
        return await self._do("zrange", name, start, end)

    async def xread(self, streams: Mapping[str, str], *, count: int, block: int | None) -> Any:
        """Return what is new in `streams`, waiting for it `block` ms if there is nothing."""
        return await self._do("xread", dict(streams), count=count, block=block)

    async def aclose(self) -> None:
        """Close every connection."""
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait({self._connecting})
        await _close(self._client)

    async def _do(self, command: str, *args: Any, **options: Any) -> Any:
        if not self._is_connected:
            await self._connected()
        try:
            return await getattr(self._client, command)(*args, **options)
        except NoScriptError:
            raise
        except BaseException:
            self._is_connected = False
            raise

    async def _connected(self) -> None:
        """Return once there is a connection, which others may wait for as well."""
        if self._connecting is None:
            self._connecting = start(self._connect())
            self._connecting.add_done_callback(_look_at)
        await asyncio.shield(self._connecting)

    async def _connect(self) -> None:
        try:
            await asyncio.wait_for(self._connect_anew(), ATTEMPT_SECONDS)
            self._is_connected = True
        except Exception:
            await asyncio.sleep(PAUSE_SECONDS)
            raise
        finally:
            self._connecting = None

    async def _connect_anew(self) -> None:
        if hasattr(self._client, "connection_pool"):
            await self._client.connection_pool.disconnect(inuse_connections=False)
        else:  # a Cluster's client forgets a node's connection that could not be made, and has no end of them
            former, self._client = self._client, self._make()
            await _close(former)
        await self._client.zrange(self._key, 0, 0)  # what we call anyway: a user may be allowed little else


def _look_at(connecting: asyncio.Task[None]) -> None:
    # Or asyncio would complain of an error that nobody waits for any more; the next call meets it again.
    if not connecting.cancelled():
        connecting.exception()


def _client(settings: Mapping[str, Any]) -> Any:
    pool = get_redis_connection_pool(**settings)
    client = get_redis_async_client(connection_pool=pool, **settings)
    # redis-py's own retries back off for longer than anyone waits here.
    for one in (*_sentinels(client), client):
        one.set_retry(Retry(NoBackoff(), 0))
    return client


async def _close(client: Any) -> None:
    if hasattr(client, "connection_pool"):
        for one in (*_sentinels(client), client):
            await one.connection_pool.disconnect()
    else:
        await client.aclose()
        for nodes in ("nodes_cache", "startup_nodes"):  # left open if it was about to look for its nodes
            await client.nodes_manager.aclose(nodes)


def _sentinels(client: Any) -> Sequence[Any]:
    pool = getattr(client, "connection_pool", None)
    return getattr(getattr(pool, "sentinel_manager", None), "sentinels", ())
