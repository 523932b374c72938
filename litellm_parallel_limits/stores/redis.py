"""Leases of all workers and proxies, in Redis."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from typing import Any, Protocol
from urllib.parse import quote, unquote

from litellm_parallel_limits.limits import Admitted, Answer, Lease, Limit, Refused, Scope
from litellm_parallel_limits.stores import Holding
from litellm_parallel_limits.stores.exchange import Exchange, Reply, settling_seconds

ROOT = "{litellm_parallel_limits}"
"""Begins every key. One hash tag for all, so that one call may touch them all on a Redis Cluster."""

MOST_PLACES = 500
"""Keys looked at in one call: about 0.4 ms of Redis."""

_LUA = files("litellm_parallel_limits.stores") / "lua"


class Script(Protocol):
    """A Lua script of a redis-py client: sent by its hash, loaded again where Redis lost it."""

    def __call__(self, keys: Sequence[str], args: Sequence[str | int]) -> Awaitable[Any]:
        """Run the script."""
        ...


class RedisClient(Protocol):
    """What is used of a `redis.asyncio` client, single, behind Sentinel, or of a Cluster."""

    def register_script(self, script: str) -> Any:
        """Return `script` as a callable."""
        ...

    def zrange(self, name: str, start: int, end: int) -> Awaitable[Any]:
        """Return members of a sorted set."""
        ...


@dataclass(slots=True)
class _Command:
    """The keys and arguments of one call; a key is named by its place."""

    keys: list[str]
    args: list[str | int]
    _places: dict[str, int] = field(default_factory=dict)

    def place(self, key: str) -> int:
        if key not in self._places:
            self.keys.append(key)
            self._places[key] = len(self.keys)
        return self._places[key]


class RedisBackend:
    """Keeps leases in Redis, each for `ttl` seconds unless renewed. `prefix` comes before every key."""

    name = "redis"

    def __init__(self, client: RedisClient, *, ttl: float, prefix: str = "") -> None:
        self._client = client
        self._ttl_ms = int(ttl * 1000)
        self._settling_ms = int(settling_seconds(ttl) * 1000)
        self._root = prefix + ROOT
        self._run_exchange, self._run_snapshot, self._run_free = (
            _script(client, name) for name in ("exchange", "snapshot", "free")
        )

    def now_ms(self) -> int:
        """Return the time by this machine's clock."""
        return int(time.time() * 1000)

    async def exchange(self, exchange: Exchange) -> Reply:
        """Carry out a call as one."""
        command = self._command(exchange)
        now, workers, epoch, *answers = await self._run_exchange(command.keys, command.args)
        told = zip(exchange.admissions, answers, strict=True)
        return Reply(int(now), workers, int(epoch), [_answer(lease, answer) for lease, answer in told])

    async def holdings(self) -> AsyncIterator[Sequence[Holding]]:
        """Yield every slot in use, some at a time."""
        used = await self._client.zrange(self._key("scopes"), 0, -1)
        places = [(_text(scope), kind) for scope in used for kind in ("lease", "apart")]
        for start in range(0, len(places), MOST_PLACES):
            some = places[start : start + MOST_PLACES]
            _, *held = await self._run_snapshot([self._key(kind, scope) for scope, kind in some], ())
            pairs = zip(some, held, strict=True)
            yield [_holding(scope, _text(member)) for (scope, _), members in pairs for member in members]

    async def free(self, scopes: Sequence[Scope], lease: str | None) -> int:
        """Free the slots in `scopes`, of `lease` only if one is named, and return how many there were."""
        keys = [self._key(kind, scope.key) for scope in scopes for kind in ("lease", "apart")]
        return int(await self._run_free(keys, (self._ttl_ms, _quoted([lease]) + ":" if lease else "")))

    def _command(self, exchange: Exchange) -> _Command:
        keys = [self._key("workers"), self._key("scopes"), self._key("worker", exchange.worker)]
        command = _Command([*keys, self._key("epoch")], [self._ttl_ms, self._settling_ms])
        args = command.args
        args += (
            exchange.worker,
            exchange.number,
            exchange.acknowledged,
            int(exchange.lately),
            exchange.epoch,
        )
        released = _slots(exchange.releases)
        args.append(len(released))
        for lease, limit in released:
            args += (*self._places(command, limit), _member(lease, limit))
        renewed = _slots(exchange.renewals)
        args.append(len(renewed))
        for lease, limit in renewed:
            place = command.place(self._key("apart" if lease.is_apart(limit) else "lease", limit.scope.key))
            args += (place, limit.scope.key, _member(lease, limit))
        args.append(len(exchange.admissions))
        for lease in exchange.admissions:
            args.append(len(lease.limits))
            for limit in lease.limits:
                args += (*self._places(command, limit), limit.scope.key, _member(lease, limit))
                args += (limit.capacity, int(limit.observed))
        return command

    def _places(self, command: _Command, limit: Limit) -> tuple[int, int]:
        """Return where a lease has its slot in `limit`, and where one that is apart: only if observed."""
        place = command.place(self._key("lease", limit.scope.key))
        return place, command.place(self._key("apart", limit.scope.key)) if limit.observed else place

    def _key(self, kind: str, scope: str = "") -> str:
        return f"{self._root}:{kind}:{scope}" if scope else f"{self._root}:{kind}"


def _script(client: RedisClient, name: str) -> Script:
    script: Script = client.register_script((_LUA / f"{name}.lua").read_text())
    return script


def _slots(leases: Iterable[Lease]) -> list[tuple[Lease, Limit]]:
    return [(lease, limit) for lease in leases for limit in lease.limits]


def _answer(lease: Lease, told: Sequence[int]) -> Answer | None:
    if not told:
        return None
    refused, apart, *counts = told
    if refused:
        return Refused(lease.limits[refused - 1], counts[refused - 1])
    return Admitted(replace(lease, apart=bool(apart)), tuple(count + 1 for count in counts))


def _member(lease: Lease, limit: Limit) -> str:
    """Return the text that stands for the lease in a scope: all that a status needs to tell of it."""
    return _quoted([lease.id, lease.worker, str(lease.started_ms), str(limit.capacity), lease.model])


def _quoted(parts: Iterable[str]) -> str:
    return ":".join(quote(part, safe="", errors="replace") for part in parts)


def _holding(scope: str, member: str) -> Holding:
    id_, worker, started_ms, capacity, model = (unquote(part) for part in member.split(":"))
    return Holding(Scope.parse(scope), id_, worker, model, int(started_ms), int(capacity))


def _text(value: bytes | str) -> str:
    """Return a reply as text, whether the client decodes its replies or not."""
    return value.decode() if isinstance(value, bytes) else value
