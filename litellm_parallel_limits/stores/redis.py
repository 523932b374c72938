"""Leases of all workers and proxies, in Redis."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from typing import Any, Protocol, TypeVar
from urllib.parse import quote, unquote

from litellm_parallel_limits.errors import StoreError
from litellm_parallel_limits.limits import Admitted, Answer, Lease, Limit, Refused, Scope
from litellm_parallel_limits.stores import Holding, Snapshot

ROOT = "{litellm_parallel_limits}"
"""Begins every key. One hash tag for all, so that one call may touch them all on a Redis Cluster."""

MOST_ADMISSIONS = 128
"""In one call: a bound on how long Redis is busy with it (about 1 ms at four limits each)."""

MOST_SLOTS = 500
"""Released, and as many renewed, in one call, or scopes looked at: about 0.4 ms of Redis each."""

RETRY_SECONDS = 1.0
"""Until a release that Redis did not confirm is sent again, where no other call takes it along."""

LOOKS = 10
"""At a reply within the time-out. An event loop that was held up looks again when it is back, and so
takes its own lateness for Redis' only once: a stall costs one tenth of the time-out."""

_LUA = files("litellm_parallel_limits.stores") / "lua"
_T = TypeVar("_T")
_Outcome = Answer | StoreError


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
class _Batch:
    """What goes to Redis in one call, and who waits for it."""

    releases: dict[str, tuple[Lease, float]]
    renewals: dict[str, Lease]
    renewing: list[asyncio.Future[StoreError | None]]
    admissions: dict[str, tuple[Lease, asyncio.Future[_Outcome]]]


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


class RedisStore:
    """Keeps leases in Redis, each for `ttl` seconds unless renewed.

    One call is under way at a time. What arrives meanwhile gathers and goes together in the next one,
    releases first, then renewals, then admissions in order; what arrives alone goes at once. No
    request for slots waits longer than `timeout` seconds. `prefix` comes before every key; `workers`
    is how many this proxy runs at least.
    """

    name = "redis"

    def __init__(
        self,
        client: RedisClient,
        *,
        worker: str,
        ttl: float,
        timeout: float = 0.25,
        prefix: str = "",
        workers: int = 1,
    ) -> None:
        self._client = client
        self._worker = worker
        self._ttl = ttl
        self._timeout = timeout
        self._root = prefix + ROOT
        self._exchange: Script = client.register_script((_LUA / "exchange.lua").read_text())
        self._snapshot: Script = client.register_script((_LUA / "snapshot.lua").read_text())
        self._releases: OrderedDict[str, tuple[Lease, float]] = OrderedDict()
        self._renewals: OrderedDict[str, Lease] = OrderedDict()
        self._renewing: list[asyncio.Future[StoreError | None]] = []
        self._admissions: OrderedDict[str, tuple[Lease, asyncio.Future[_Outcome]]] = OrderedDict()
        self._sending: asyncio.Task[None] | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._call = 0
        self._ahead_ms = int((time.time() - time.monotonic()) * 1000)  # until Redis has told its time
        self._workers = self._least_workers = workers

    @property
    def workers(self) -> int:
        """How many workers have called Redis within the last time to live."""
        return self._workers

    def now_ms(self) -> int:
        """Return Redis' time in milliseconds, reckoned from its last answer."""
        return int(time.monotonic() * 1000) + self._ahead_ms

    async def acquire(self, lease: Lease) -> Answer:
        """Take one slot in each of the lease's limits, or none where an enforced one is full."""
        answer: asyncio.Future[_Outcome] = asyncio.get_running_loop().create_future()
        self._admissions[lease.id] = (lease, answer)
        self._send()
        try:
            await _wait(answer, self._timeout)
            outcome = answer.result() if answer.done() else StoreError(f"no answer in {self._timeout} s")
            if isinstance(outcome, StoreError):
                raise outcome
        except BaseException:
            self.release(lease)  # it may have been granted, or be granted yet
            raise
        return outcome

    def release(self, lease: Lease) -> None:
        """Free every slot of the lease, with the next call to Redis."""
        self._renewals.pop(lease.id, None)
        if self._admissions.pop(lease.id, None) is None:
            self._releases[lease.id] = (lease, time.monotonic() + self._ttl)
            self._send()

    async def renew(self, leases: Sequence[Lease]) -> None:
        """Let the leases live a full time to live from now, those that Redis has lost as well."""
        renewed: asyncio.Future[StoreError | None] = asyncio.get_running_loop().create_future()
        self._renewals.update((lease.id, lease) for lease in leases)
        self._renewing.append(renewed)
        self._send()
        error = await renewed
        if error is not None:
            raise error

    async def snapshot(self) -> Snapshot:
        """Return every slot in use, over all workers."""
        await self.renew(())  # what was released before is told to Redis before
        used = await self._in_time(self._client.zrange(self._key("scopes"), 0, -1))
        places = [(_text(scope), kind) for scope in used for kind in ("lease", "apart")]
        found: list[Holding] = []
        for start in range(0, len(places), MOST_SLOTS):
            some = places[start : start + MOST_SLOTS]
            _, *held = await self._in_time(
                self._snapshot([self._key(kind, scope) for scope, kind in some], ())
            )
            pairs = zip(some, held, strict=True)
            found += (_holding(scope, _text(member)) for (scope, _), members in pairs for member in members)
        return Snapshot(self.now_ms(), tuple(found))

    def _send(self) -> None:
        if self._sending is None or self._sending.done():
            self._sending = asyncio.get_running_loop().create_task(self._send_all())

    async def _send_all(self) -> None:
        while self._releases or self._renewing or self._admissions:
            batch = self._next_batch()
            try:
                reply = await self._in_time(self._exchange(*self._command(batch)))
            except StoreError as error:
                self._failed(batch, error)
                if not (self._renewing or self._admissions):
                    self._send_later()
                    return
            except BaseException:
                self._failed(batch, StoreError("the call was given up"))
                raise
            else:
                self._answered(batch, reply)

    def _send_later(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
        self._retry = asyncio.get_running_loop().call_later(RETRY_SECONDS, self._send)

    def _next_batch(self) -> _Batch:
        now = time.monotonic()
        releases = _take(self._releases, MOST_SLOTS, lambda release: len(release[0].limits))
        renewals = _take(self._renewals, MOST_SLOTS, lambda lease: len(lease.limits))
        pending = {id_: release for id_, release in releases.items() if release[1] > now}
        batch = _Batch(pending, renewals, [], {})
        if not self._releases and not self._renewals:  # who is new comes after what is told before
            batch.renewing, self._renewing = self._renewing, []
            batch.admissions = _take(self._admissions, MOST_ADMISSIONS, lambda _: 1)
        return batch

    def _command(self, batch: _Batch) -> tuple[list[str], list[str | int]]:
        self._call += 1
        keys = [self._key("workers"), self._key("scopes"), self._key("worker", self._worker)]
        command = _Command(keys, [int(self._ttl * 1000), self._worker, self._call])
        args = command.args
        released = [(lease, limit) for lease, _ in batch.releases.values() for limit in lease.limits]
        args.append(len(released))
        for lease, limit in released:
            args += (*self._places(command, limit), _member(lease, limit))
        renewed = [(lease, limit) for lease in batch.renewals.values() for limit in lease.limits]
        args.append(len(renewed))
        for lease, limit in renewed:
            place = command.place(self._key("apart" if lease.is_apart(limit) else "lease", limit.scope.key))
            args += (place, limit.scope.key, _member(lease, limit))
        args.append(len(batch.admissions))
        for lease, _ in batch.admissions.values():
            args.append(len(lease.limits))
            for limit in lease.limits:
                args += (*self._places(command, limit), limit.scope.key, _member(lease, limit))
                args += (limit.capacity, int(limit.observed))
        return command.keys, args

    def _places(self, command: _Command, limit: Limit) -> tuple[int, int]:
        """Return where a lease has its slot in `limit`, and where one that is apart: only if observed."""
        place = command.place(self._key("lease", limit.scope.key))
        return place, command.place(self._key("apart", limit.scope.key)) if limit.observed else place

    def _answered(self, batch: _Batch, reply: Sequence[Any]) -> None:
        now, workers, *answers = reply
        self._workers = max(self._least_workers, workers)
        self._ahead_ms = int(now) - int(time.monotonic() * 1000)
        for (lease, answer), told in zip(batch.admissions.values(), answers, strict=True):
            if not answer.done():
                answer.set_result(_answer(lease, told))
        _tell(batch.renewing, None)

    def _failed(self, batch: _Batch, error: StoreError) -> None:
        self._releases = OrderedDict({**batch.releases, **self._releases})
        for _, answer in batch.admissions.values():
            if not answer.done():
                answer.set_result(error)
        _tell([*batch.renewing, *self._renewing], error)
        self._renewing.clear()
        self._renewals.clear()

    async def _in_time(self, call: Awaitable[_T]) -> _T:
        """Return what `call` gives within the time-out. Raises StoreError for every failure."""
        task = asyncio.ensure_future(call)
        task.add_done_callback(_look_at)
        try:
            await _wait(task, self._timeout)
            if not task.done():
                raise StoreError(f"Redis did not answer in {self._timeout} s")
            return task.result()
        except StoreError:
            raise
        except Exception as error:  # redis-py, TLS, name look-ups, credential providers of the operator's
            raise StoreError(f"Redis failed: {type(error).__name__}") from error
        finally:
            task.cancel()

    def _key(self, kind: str, scope: str = "") -> str:
        return f"{self._root}:{kind}:{scope}" if scope else f"{self._root}:{kind}"


async def _wait(future: asyncio.Future[Any], seconds: float) -> None:
    """Wait until `future` is done, for `seconds` in which this event loop was not held up."""
    for _ in range(LOOKS):
        await asyncio.wait({future}, timeout=seconds / LOOKS)
        if future.done():
            return


def _take(waiting: OrderedDict[str, _T], most: int, weight: Callable[[_T], int]) -> dict[str, _T]:
    """Take the first of `waiting`, until together they weigh `most`."""
    taken: dict[str, _T] = {}
    total = 0
    while waiting:
        first, value = waiting.popitem(last=False)
        total += weight(value)
        if taken and total > most:
            waiting[first] = value
            waiting.move_to_end(first, last=False)
            break
        taken[first] = value
    return taken


def _tell(renewing: Iterable[asyncio.Future[StoreError | None]], outcome: StoreError | None) -> None:
    for renewed in renewing:
        if not renewed.done():
            renewed.set_result(outcome)


def _look_at(task: asyncio.Future[Any]) -> None:
    """Take note of the task's exception, which asyncio would complain about where nobody waits for it."""
    if not task.cancelled():
        task.exception()


def _answer(lease: Lease, told: Sequence[int]) -> Answer:
    refused, apart, *counts = told
    if refused:
        return Refused(lease.limits[refused - 1], counts[refused - 1])
    return Admitted(replace(lease, apart=bool(apart)), tuple(count + 1 for count in counts))


def _member(lease: Lease, limit: Limit) -> str:
    """Return the text that stands for the lease in a scope: all that a status needs to tell of it."""
    parts = (lease.id, lease.worker, str(lease.started_ms), str(limit.capacity), lease.model)
    return ":".join(quote(part, safe="", errors="replace") for part in parts)


def _holding(scope: str, member: str) -> Holding:
    id_, worker, started_ms, capacity, model = (unquote(part) for part in member.split(":"))
    return Holding(Scope.parse(scope), id_, worker, model, int(started_ms), int(capacity))


def _text(value: bytes | str) -> str:
    """Return a reply as text, whether the client decodes its replies or not."""
    return value.decode() if isinstance(value, bytes) else value
