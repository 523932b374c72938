"""What the store says is held, seen from outside the workers where that is possible."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import httpx
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.rig.identities import admin_key
from tests.rig.process import HOST
from tests.rig.proxy import STATUS, Proxy

Held = Mapping[str, int]
"""How many live leases each limit has."""


IMPATIENT: Mapping[str, Any] = {
    "socket_timeout": 0.3,
    "retry": Retry(NoBackoff(), 0),
    "decode_responses": True,
}
"""A Redis that does not answer does not tell."""


class Holdings(Protocol):
    """The view of one store."""

    def held(self) -> Held | None:
        """Return what is held now; None if the store does not tell."""
        ...


@dataclass(frozen=True)
class InRedis:
    """Counts the leases that have not lapsed by Redis' own clock; `port` tells where it listens now."""

    port: Callable[[], int | None]

    def held(self) -> Held | None:
        """Return how many members of each limit's sorted sets have a deadline to come."""
        try:
            with redis.Redis(host=HOST, port=self.port() or 0, **IMPATIENT) as client:
                return _held(client)
        except (redis.RedisError, OSError):
            return None


def _held(client: redis.Redis) -> Held:
    seconds, micros = client.time()
    now = seconds * 1000 + micros // 1000
    held: Counter[str] = Counter()
    for key in client.scan_iter("*:lease:*", count=1000):
        held[key.partition(":lease:")[2].partition(";")[0]] += int(client.zcount(key, now, "+inf"))
    return held


@dataclass(frozen=True)
class InStatus:
    """Asks a proxy, where nobody else can look."""

    proxy: Proxy

    def held(self) -> Held | None:
        """Return how many are in flight in each limit's scopes."""
        headers = {"authorization": f"Bearer {admin_key()}"}
        try:
            reply = httpx.get(
                self.proxy.url + STATUS, headers=headers, timeout=1, trust_env=False, verify=False
            ).raise_for_status()
        except httpx.HTTPError:
            return None
        held: Counter[str] = Counter()
        for scope in reply.json()["scopes"]:
            held[scope["name"]] += scope["in_flight"]
        return held
