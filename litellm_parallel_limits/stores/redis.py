"""Leases of all workers and proxies, in Redis."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Iterable, Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Any, Protocol
from urllib.parse import quote, unquote

from litellm_parallel_limits.limits import LONGEST_WAIT_SECONDS, Answer, Lease, Limit, Scope
from litellm_parallel_limits.stores import Holding
from litellm_parallel_limits.stores.exchange import (
    Ask,
    Exchange,
    Grant,
    Reply,
    Stands,
    granted,
    refused_of,
    settling_seconds,
)
from litellm_parallel_limits.stores.order import MOST_PASSES, MOST_TURNS, PRIORITY_SECONDS, lane

ROOT = "{litellm_parallel_limits}"
"""Begins every key. One hash tag for all, so that one call may touch them all on a Redis Cluster."""

MOST_PLACES = 500
"""Keys looked at in one call: about 0.4 ms of Redis."""

MOST_PRUNED = 500
"""Lapsed leases removed from a scope at a time: about 0.2 ms of Redis. Those that stay are not counted."""

MOST_NOTED = 30
"""Places of what was noted, read in one call: each has a few dozen sums, or a hundred."""

LISTEN_MS = 500
"""For which one call waits to be told of turns: less than the time-out of its connection."""

LOOKS = 50
"""At what there is, without blocking, after a call that blocks has failed: for a second."""

LOOK_SECONDS = 0.02

MOST_GRANTS = 100
"""Told of in one reply."""

MOST_QUOTED = 10_000
"""Names that are remembered as they are told: a worker's own, those of leases in flight, and of models."""

LONGEST_WAIT_MS = int(LONGEST_WAIT_SECONDS * 1000)

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


class Listener(Protocol):
    """What is used of a client that listens."""

    def xread(self, streams: Any, *, count: int, block: int | None) -> Awaitable[Any]:
        """Return what is new in `streams`, waiting for it `block` ms if there is nothing."""
        ...


class _Command:
    """The keys and arguments of one call. A key is named by its place, a limit by its index in `limits`."""

    def __init__(self, root: str, keys: list[str]) -> None:
        self.keys = keys
        self.limits: list[str | int] = []
        self.args: list[str | int] = []
        self._root = root
        self._places: dict[str, int] = {}
        self._indexes: dict[int, int] = {}
        self._lists: dict[int, str] = {}
        self._told: list[Limit] = []

    @property
    def all_args(self) -> list[str | int]:
        """What is to follow the arguments of every call."""
        return [len(self._told), *self.limits, *self.args]

    def add(self, lease: Lease) -> None:
        """Name a lease."""
        # By identity, which is quick to look up: requests that say the same have the very same limits.
        limits = self._lists.get(id(lease.limits))
        if limits is None:
            limits = "\n".join(map(str, (len(lease.limits), *map(self._index, lease.limits))))
            self._lists[id(lease.limits)] = limits
        self.args += (*_ends(lease), limits)

    def _index(self, limit: Limit) -> int:
        index = self._indexes.get(id(limit))
        return self._add(limit) if index is None else index

    def _add(self, limit: Limit) -> int:
        key, observed = limit.scope.key, limit.observed
        place = self._place("lease", key)
        wait = limit.wait if limit.may_be_waited_for else None
        self.limits += (place, self._place("apart", key) if observed else place, key)
        self.limits += (limit.capacity, int(observed))
        self.limits += ("",) if wait is None else (wait.most, wait.flow)
        self._told.append(limit)
        index = self._indexes[id(limit)] = len(self._told)
        return index

    def _place(self, kind: str, scope: str) -> int:
        key = f"{self._root}:{kind}:{scope}"
        if key not in self._places:
            self.keys.append(key)
            self._places[key] = len(self.keys)
        return self._places[key]


class RedisBackend:
    """Keeps leases in Redis, each for `ttl` seconds unless renewed. `prefix` comes before every key.

    `listener` is a client for those that wait: its connection is taken while there is nothing to tell.
    """

    name = "redis"

    def __init__(
        self, client: RedisClient, listener: Listener | None = None, *, ttl: float, prefix: str = ""
    ) -> None:
        self._client = client
        self._listener = listener
        self._ttl_ms = int(ttl * 1000)
        self._settling_ms = int(settling_seconds(ttl) * 1000)
        self._root = prefix + ROOT
        self._run_exchange = _script(client, "leases", "queue", "exchange")
        self._run_snapshot, self._run_waiting, self._run_free, self._run_note, self._run_noted = (
            _script(client, name) for name in ("snapshot", "waiting", "free", "note", "noted")
        )

    def now_ms(self) -> int:
        """Return the time by this machine's clock."""
        return int(time.time() * 1000)

    async def exchange(self, exchange: Exchange) -> Reply:
        """Carry out a call as one."""
        now, workers, epoch, alarm, *answers = await self._run_exchange(*self._command(exchange))
        told = zip(exchange.asks, answers, strict=True)
        return Reply(int(now), workers, int(epoch), [_answer(*pair) for pair in told], int(alarm))

    async def grants(self, worker: str) -> AsyncGenerator[Sequence[Grant], None]:
        """Yield what those are given that wait in `worker`, as it is given; an empty list now and then."""
        assert self._listener is not None  # noqa: S101 (nobody waits without)
        stream, last, looks = self._key("wake", worker), "0", 1
        while True:
            try:
                block = None if looks else LISTEN_MS
                found = _entries(await self._listener.xread({stream: last}, count=MOST_GRANTS, block=block))
            except Exception:  # nothing may block, or the connection is gone, or another server is there
                if looks:
                    raise
                last, looks = "0", LOOKS
                continue
            last = _text(found[-1][0]) if found else last
            yield [_grant(id_, told) for _, fields in found for id_, told in fields.items()]
            looks = max(0, looks - 1)
            if looks:
                await asyncio.sleep(LOOK_SECONDS)

    async def waiting(self, scopes: Sequence[Scope]) -> Sequence[int]:
        """Return how many wait that came for a slot in each of `scopes`."""
        keys = [self._key("workers"), *(self._key("waiting", scope.key) for scope in scopes)]
        return [int(number) for number in await self._run_waiting(keys, ())]

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
        keys = [self._key("alarms")]
        keys += (self._key(kind, scope.key) for scope in scopes for kind in ("lease", "apart"))
        meant = _quoted([lease]) + ":" if lease else ""
        return int(await self._run_free(keys, (self._ttl_ms, meant, *(scope.key for scope in scopes))))

    async def note(self, place: str, amounts: Mapping[str, int], *, seconds: int, most: int) -> None:
        """Add `amounts` to what was noted at a `place`."""
        pairs = (part for pair in amounts.items() for part in pair)
        await self._run_note([self._key("noted", place)], (seconds * 1000, most, *pairs))

    async def noted(self, places: Sequence[str]) -> Sequence[Mapping[str, int]]:
        """Return the sums of what was noted at each of `places`."""
        found: list[Mapping[str, int]] = []
        for start in range(0, len(places), MOST_NOTED):
            keys = [self._key("noted", place) for place in places[start : start + MOST_NOTED]]
            found += (_sums(pairs) for pairs in await self._run_noted(keys, ()))
        return found

    def _command(self, exchange: Exchange) -> tuple[list[str], list[str]]:
        keys = [self._key("workers"), self._key("scopes"), self._key("worker", exchange.worker)]
        keys += (self._key("epoch"), self._key("alarms"))
        told: list[str | int] = [self._ttl_ms, self._settling_ms, self._root, LONGEST_WAIT_MS]
        told += (PRIORITY_SECONDS * 1_000_000, MOST_PASSES, MOST_TURNS, MOST_PRUNED)
        told += (exchange.worker, exchange.number)
        told += (exchange.acknowledged, int(exchange.lately), exchange.epoch)
        command = _Command(self._root, keys)
        args = command.args
        args.append(len(exchange.releases))
        for ask in exchange.releases:
            args += ("",) if ask.patience is None else _waiter(ask)
            command.add(ask.lease)
        args.append(len(exchange.renewals))
        for lease in exchange.renewals:
            args.append(int(lease.apart))
            command.add(lease)
        args.append(len(exchange.asks))
        for ask in exchange.asks:
            patience = ask.patience
            if patience is None:
                args.append("")
            else:
                args += (*_waiter(ask), patience.priority, int(patience.waited * 1e6))
            command.add(ask.lease)
        lines = told + command.all_args
        # One text: redis-py takes a microsecond for each argument. No text of ours has a line's end in it.
        return command.keys, ["\n".join(map(str, lines)) + "\n"]

    def _key(self, kind: str, scope: str = "") -> str:
        return f"{self._root}:{kind}:{scope}" if scope else f"{self._root}:{kind}"


def _script(client: RedisClient, *names: str) -> Script:
    script: Script = client.register_script("\n".join((_LUA / f"{name}.lua").read_text() for name in names))
    return script


def _answer(ask: Ask, told: Sequence[int]) -> Answer | Stands | None:
    if not told:
        return None
    refused, apart, waiting, *counts = told
    if not refused:
        return granted(ask.lease, counts, apart=bool(apart))
    limit, in_flight = ask.lease.limits[abs(refused) - 1], counts[abs(refused) - 1]
    if refused < 0:
        return Stands(limit, in_flight, waiting)
    return refused_of(ask, limit, in_flight, waiting)


def _entries(found: Any) -> Sequence[Any]:
    """Return what is new in the only stream, as either protocol of Redis tells it."""
    if isinstance(found, Mapping):  # RESP3
        return [entry for entries in found.values() for some in entries for entry in some]
    return [entry for _, entries in found for entry in entries]


def _grant(id_: bytes | str, told: bytes | str) -> Grant:
    apart, *counts = map(int, _text(told).split())
    return Grant(_text(id_), bool(apart), tuple(counts))


def _waiter(ask: Ask) -> tuple[str, str]:
    """Return the text that stands for one who waits, and the lane in which it does."""
    lease = ask.lease
    assert ask.patience is not None  # noqa: S101 (else it does not wait)
    told = _quoted([lease.id, lease.worker, str(lease.started_ms), lease.model])
    return told, lane(lease.limits, ask.patience)


def _ends(lease: Lease) -> tuple[str, str]:
    """Return what stands for the lease in a scope, before and after its number there.

    Together it is all that a status needs to tell of it.
    """
    told = _quoted([lease.id, lease.worker, str(lease.started_ms)])
    return f"{told}:", f":{_quote(lease.model)}"


def _quoted(parts: Iterable[str]) -> str:
    return ":".join(map(_quote, parts))


@lru_cache(MOST_QUOTED)
def _quote(part: str) -> str:
    return quote(part, safe="", errors="replace")


def _holding(scope: str, member: str) -> Holding:
    id_, worker, started_ms, capacity, model = (unquote(part) for part in member.split(":"))
    return Holding(Scope.parse(scope), id_, worker, model, int(started_ms), int(capacity))


def _sums(pairs: Sequence[bytes | str]) -> Mapping[str, int]:
    """Return a hash as Lua gives it: fields and values by turns."""
    return {_text(name): int(amount) for name, amount in zip(pairs[::2], pairs[1::2], strict=True)}


def _text(value: bytes | str) -> str:
    """Return a reply as text, whether the client decodes its replies or not."""
    return value.decode() if isinstance(value, bytes) else value
