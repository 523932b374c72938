"""Connections of our own to LiteLLM's Redis, which are made anew when it fails."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from litellm._redis import get_redis_async_client, get_redis_connection_pool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError

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
    settings = {
        **settings,
        "max_connections": MOST_CONNECTIONS,
        "socket_connect_timeout": STEP_SECONDS,
        "socket_timeout": max(STEP_SECONDS, 2 * timeout),  # the caller's time is up first
    }
    pool = get_redis_connection_pool(**settings)
    client = get_redis_async_client(connection_pool=pool, **settings)
    _never_retry(client)
    return OwnClient(client, key)


class OwnClient:
    """A `redis.asyncio` client, single, behind Sentinel, or of a Cluster, that is `key`'s.

    After a call that failed, or that its caller gave up, all is made anew before the next one: where the
    master is now, and a connection to it. That goes on when the callers' time is up. Else a server
    that is slow to reach would never be reached, and a machine that is gone never be given up.
    """

    def __init__(self, client: Any, key: str) -> None:
        self._client = client
        self._key = key
        self._is_connected = False
        self._connecting: asyncio.Task[None] | None = None

    def register_script(self, script: str) -> Script:
        """Return `script` as a callable: sent by its hash, and in full where Redis does not know it."""
        sha = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()

        async def run(keys: Sequence[str], args: Sequence[str | int]) -> Any:
            try:
                return await self._do(self._client.evalsha, sha, len(keys), *keys, *args)
            except NoScriptError:  # not SCRIPT LOAD: on a Cluster that fails if any of its masters is gone
                return await self._do(self._client.eval, script, len(keys), *keys, *args)

        return run

    async def zrange(self, name: str, start: int, end: int) -> Any:
        """Return members of a sorted set."""
        return await self._do(self._client.zrange, name, start, end)

    async def aclose(self) -> None:
        """Close every connection."""
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait({self._connecting})
        for one in (*_sentinels(self._client), self._client):
            await _disconnect(one)

    async def _do(self, call: Callable[..., Awaitable[Any]], *args: str | int) -> Any:
        if not self._is_connected:
            await self._connected()
        try:
            return await call(*args)
        except NoScriptError:
            raise
        except BaseException:
            self._is_connected = False
            raise

    async def _connected(self) -> None:
        """Return once there is a connection, which others may wait for as well."""
        if self._connecting is None:
            self._connecting = asyncio.get_running_loop().create_task(self._connect())
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
        await _disconnect(self._client)
        await self._client.exists(self._key)


async def _disconnect(client: Any) -> None:
    """Close the client's connections; it makes others, and asks a Cluster again who has which slots."""
    nodes = getattr(client, "nodes_manager", None)
    if nodes is None:
        await client.connection_pool.disconnect(inuse_connections=False)
    else:
        await client.aclose()
        await nodes.aclose()  # of one that was about to look at its nodes anew, the line before closes none


def _never_retry(client: Any) -> None:
    """Let redis-py report what failed: its own retries back off for longer than anyone waits here."""
    for one in (*_sentinels(client), client):
        one.set_retry(Retry(NoBackoff(), 0))


def _sentinels(client: Any) -> Sequence[Any]:
    pool = getattr(client, "connection_pool", None)
    return getattr(getattr(pool, "sentinel_manager", None), "sentinels", ())
