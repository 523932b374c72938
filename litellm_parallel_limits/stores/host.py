"""Leases of the workers of one machine, in a SQLite file."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from litellm_parallel_limits.limits import Admitted, Answer, Lease, Limit, Scope
from litellm_parallel_limits.stores import Holding, line
from litellm_parallel_limits.stores.admit import admit
from litellm_parallel_limits.stores.bells import Bells
from litellm_parallel_limits.stores.exchange import (
    UNKNOWN,
    Ask,
    Exchange,
    Grant,
    Reply,
    Stands,
    settling_seconds,
)
from litellm_parallel_limits.stores.line import Line, Ticks

LISTEN_SECONDS = 0.5
"""From one look at what was given to the next, should the bell not ring."""

MOST_PLACES = 30
"""Of what was noted, read at a time: a millisecond."""

_TABLES = {
    "leases_1": """(
        scope TEXT, id TEXT, apart INT, worker TEXT, model TEXT, started INT, capacity INT,
        deadline INT, freed INT, PRIMARY KEY (scope, id)) WITHOUT ROWID""",
    "workers_1": "(worker TEXT PRIMARY KEY, number INT, deadline INT) WITHOUT ROWID",
    "epochs_1": "(epoch INT, called INT)",
    "grants_1": "(worker TEXT, id TEXT, apart INT, counts TEXT)",
    "notes_1": "(place TEXT, name TEXT, amount INT, deadline INT, PRIMARY KEY (place, name)) WITHOUT ROWID",
}
"""Who changes a table gives it the next number: workers of an older version may use the file as well."""

_T = TypeVar("_T")


class HostBackend:
    """Keeps leases in the SQLite file `path`, each for `ttl` seconds unless renewed.

    Every worker opens the file for itself, and makes it anew where it is gone. `timeout` is how many
    seconds it waits while others write. `clock` returns seconds that never go back and are the same for
    all processes of the machine. `prepare` makes a place for the file, where that may vanish.
    """

    name = "host"

    def __init__(
        self,
        path: Path,
        *,
        ttl: float,
        timeout: float = 0.25,
        clock: Callable[[], float] = time.monotonic,
        prepare: Callable[[], object] = lambda: None,
    ) -> None:
        self._path = path.absolute()  # or `:memory:` would be no file
        self._ttl_ms = int(ttl * 1000)
        self._settling_ms = int(settling_seconds(ttl) * 1000)
        self._timeout = timeout
        self._clock = clock
        self._prepare = prepare
        # One thread, so that a call never comes after a later one, whenever it was given up.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="litellm_parallel_limits")
        self._ticks = Ticks(clock)
        self._opened: tuple[sqlite3.Connection, os.stat_result] | None = None
        self._bells = Bells(self._path)

    def now_ms(self) -> int:
        """Return the clock's time in milliseconds."""
        return max(1, int(self._clock() * 1000))

    async def exchange(self, exchange: Exchange) -> Reply:
        """Carry out a call as one."""
        return await self._run(lambda work: self._exchange(work, exchange))

    async def grants(self, worker: str) -> AsyncGenerator[Sequence[Grant], None]:
        """Yield what those are given that wait in `worker`, as it is given; an empty list now and then."""
        async with self._bells.listening(worker) as bell:
            while True:
                yield await self._run(lambda work: work.take_grants(worker))
                await bell.rung(LISTEN_SECONDS)

    async def waiting(self, scopes: Sequence[Scope]) -> Sequence[int]:
        """Return how many wait that came for a slot in each of `scopes`."""
        return await self._run(lambda work: [work.line.waiting(scope) for scope in scopes])

    async def holdings(self) -> AsyncIterator[Sequence[Holding]]:
        """Yield every slot in use."""
        yield await self._run(_Work.holdings)

    async def free(self, scopes: Sequence[Scope], lease: str | None) -> int:
        """Free the slots in `scopes`, of `lease` only if one is named, and return how many there were."""
        return await self._run(lambda work: work.free(scopes, lease))

    async def note(self, place: str, amounts: Mapping[str, int], *, seconds: int, most: int) -> None:
        """Add `amounts` to what was noted at a `place`."""
        await self._run(lambda work: work.note(place, amounts, seconds, most))

    async def noted(self, places: Sequence[str]) -> Sequence[Mapping[str, int]]:
        """Return the sums of what was noted at each of `places`."""
        found: list[Mapping[str, int]] = []
        for start in range(0, len(places), MOST_PLACES):  # who asks for slots comes between
            some = places[start : start + MOST_PLACES]
            found += await self._run(partial(_noted, some))
        return found

    async def close(self) -> None:
        """Close the file."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown()

    async def _run(self, work: Callable[[_Work], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._transact, work)

    def _transact(self, work: Callable[[_Work], _T]) -> _T:
        try:
            with closing(self._connection().cursor()) as cursor:
                with _transaction(cursor):
                    working = _Work(cursor, self.now_ms(), self._ttl_ms, self._ticks)
                    result = work(working)
                self._bells.ring(working.woken)
                self._bells.forget(working.dead)
                return result
        except sqlite3.Error:
            self._close()  # the next call finds out what is there
            raise

    def _connection(self) -> sqlite3.Connection:
        """Return a connection to the file that is there now, even if it is not the one that was."""
        if self._opened is not None and not _is_at(self._path, self._opened[1]):
            self._close()
        if self._opened is None:
            self._prepare()
            _create(self._path)
            created = self._path.stat()
            self._opened = _connect(self._path, self._timeout), created
        return self._opened[0]

    def _close(self) -> None:
        if self._opened is not None:
            self._opened[0].close()
            self._opened = None

    def _exchange(self, work: _Work, exchange: Exchange) -> Reply:
        workers, epoch = work.begin(exchange)
        freed: list[Scope] = []
        for ask in exchange.releases:
            opened = () if ask.patience is None else work.line.leave(ask.lease.id)
            freed += (limit.scope for limit in (*ask.lease.limits, *opened))
            work.release(ask.lease)
        if exchange.epoch in {UNKNOWN, epoch}:  # as in exchange.lua
            for lease in exchange.renewals:
                work.hold(lease)
        is_settled = epoch < 0 or work.now - epoch >= self._settling_ms
        work.serve(freed, is_settled=is_settled)
        admits = exchange.epoch == epoch or (exchange.epoch == UNKNOWN and is_settled)
        asks = [ask if is_settled else replace(ask, patience=None) for ask in exchange.asks]
        answers = [work.admit(ask) if admits else None for ask in asks]
        alarm = work.line.alarm(0 if is_settled else epoch + self._settling_ms)
        return Reply(work.now, workers, epoch, answers, alarm)


class _Work:
    """What is done in one transaction, at `now`; what is held or renewed in it lives for `ttl`, in ms."""

    def __init__(self, cursor: sqlite3.Cursor, now: int, ttl: int, tick: Callable[[], int]) -> None:
        self._cursor = cursor
        self.now = now
        self._times = {"now": now, "deadline": now + ttl}
        self.line = Line(cursor, self, now=now, tick=tick)
        self.woken: set[str] = set()
        self.dead: set[str] = set()

    def begin(self, exchange: Exchange) -> tuple[int, int]:
        """Take note of the worker, and return how many live and the epoch, anew where leases were lost."""
        if self._number("SELECT called FROM epochs_1") > self.now:  # the machine, and its clock, began anew
            self._forget()
        self.dead = {worker for (worker,) in self._do("SELECT worker FROM workers_1 WHERE deadline < :now")}
        for worker in self.dead:
            self._do("DELETE FROM grants_1 WHERE worker = :worker", worker=worker)
        self._do("DELETE FROM workers_1 WHERE deadline < :now")
        if exchange.renewals:
            self._do("DELETE FROM leases_1 WHERE deadline < :now")
        last = self._number("SELECT number FROM workers_1 WHERE worker = :worker", worker=exchange.worker)
        self._do(
            "REPLACE INTO workers_1 VALUES (:worker, :number, :deadline)",
            worker=exchange.worker,
            number=exchange.number,
        )
        workers = self._number("SELECT COUNT(*) FROM workers_1")
        epoch = self._number("SELECT epoch FROM epochs_1")
        # As in exchange.lua.
        known = exchange.epoch
        is_behind = last < exchange.acknowledged and (last or exchange.lately or workers == 1)
        is_lost = epoch == UNKNOWN or abs(known) > abs(epoch) or (known == epoch and is_behind)
        if is_lost or (epoch < 0 and known not in {UNKNOWN, epoch}):
            epoch = -self.now if exchange.epoch == UNKNOWN else self.now
        self._do("DELETE FROM epochs_1")
        self._do("INSERT INTO epochs_1 VALUES (:epoch, :now)", epoch=epoch)
        return workers, epoch

    def release(self, lease: Lease) -> None:
        """Free every slot of the lease."""
        for limit in lease.limits:
            self._do("DELETE FROM leases_1 WHERE scope = :scope AND id = :id", **_place(lease, limit))

    def hold(self, lease: Lease) -> None:
        """Let every slot of the lease live until the deadline; one that was freed stays free."""
        for limit in lease.limits:
            self._do(
                "INSERT INTO leases_1 VALUES "
                "(:scope, :id, :apart, :worker, :model, :started, :capacity, :deadline, 0) "
                "ON CONFLICT (scope, id) DO UPDATE SET deadline = :deadline",
                **_place(lease, limit),
                apart=lease.is_apart(limit),
                worker=_stored(lease.worker),
                model=_stored(lease.model),
                started=lease.started_ms,
                capacity=limit.capacity,
            )

    def admit(self, ask: Ask) -> Answer | Stands:
        """Take one slot in each of the lease's limits, or none where an enforced one is full."""
        if ask.patience is not None and (held := self._holding(ask.lease)) is not None:
            return held  # of a call of which the reply was lost, or by a turn since
        self.release(ask.lease)  # of a call that was carried out before, and is made again
        answer = admit(ask, self, self.line if self._is_waited(ask) else None)
        if isinstance(answer, Admitted):
            self.hold(answer.lease)
        return answer

    def serve(self, freed: Iterable[Scope], *, is_settled: bool = True) -> None:
        """Give turns to those that wait for what was freed, or has lapsed; later if it is not settled."""
        if self.line.is_empty():
            return
        opened = self.line.bury() if self.dead else ()
        freed = [*freed, *(limit.scope for limit in opened)]
        if is_settled:
            self._do("DELETE FROM leases_1 WHERE deadline < :now")
            self.line.serve(freed)
        else:
            self.line.postpone(freed)

    def count(self, scope: Scope) -> int:
        """Return how many leases are compared with a limit of `scope`."""
        return self._number(
            "SELECT COUNT(*) FROM leases_1 WHERE scope = :scope "
            "AND NOT apart AND NOT freed AND deadline >= :now",
            scope=scope.key,
        )

    def grant(self, lease: Lease) -> None:
        """Give the lease its slots, and tell its worker."""
        counts = [self.count(limit.scope) for limit in lease.limits]
        over = (
            limit.observed and count >= limit.capacity
            for limit, count in zip(lease.limits, counts, strict=True)
        )
        lease = replace(lease, apart=any(over))
        self.hold(lease)
        self._do(
            "INSERT INTO grants_1 VALUES (:worker, :id, :apart, :counts)",
            worker=lease.worker,
            id=lease.id,
            apart=lease.apart,
            counts=" ".join(map(str, counts)),
        )
        self.woken.add(lease.worker)

    def take_grants(self, worker: str) -> Sequence[Grant]:
        """Return what was given to those that wait in `worker`, and tell of it no more."""
        found = self._do(
            "SELECT id, apart, counts FROM grants_1 WHERE worker = :worker", worker=worker
        ).fetchall()
        if found:
            self._do("DELETE FROM grants_1 WHERE worker = :worker", worker=worker)
        return [Grant(id_, bool(apart), tuple(map(int, counts.split()))) for id_, apart, counts in found]

    def lapses_at(self, scope: Scope) -> int:
        """Return when the next lease in `scope` lapses; a time to live from now if there is none."""
        return (
            self._number(
                "SELECT MIN(deadline) FROM leases_1 WHERE scope = :scope AND NOT apart AND NOT freed "
                "AND deadline >= :now",
                scope=scope.key,
            )
            or self._times["deadline"]
        )

    def is_live(self, worker: str) -> bool:
        """Whether the worker has called within a time to live."""
        return bool(
            self._number("SELECT 1 FROM workers_1 WHERE worker = :worker AND deadline >= :now", worker=worker)
        )

    def free(self, scopes: Sequence[Scope], lease: str | None) -> int:
        """Free the slots in `scopes`, of `lease` only if one is named."""
        freed = 0
        for scope in scopes:
            self._do(
                "UPDATE leases_1 SET freed = 1, deadline = :deadline WHERE scope = :scope "
                "AND (:id IS NULL OR id = :id) AND NOT freed AND deadline >= :now",
                scope=scope.key,
                id=lease,
            )
            freed += self._cursor.rowcount
        self.serve(scopes)
        return freed

    def holdings(self) -> Sequence[Holding]:
        """Return every slot in use."""
        rows = self._do(
            "SELECT scope, id, worker, model, started, capacity FROM leases_1 "
            "WHERE NOT freed AND deadline >= :now"
        )
        return [Holding(Scope.parse(scope), *rest) for scope, *rest in rows]

    def note(self, place: str, amounts: Mapping[str, int], seconds: int, most: int) -> None:
        """Add `amounts` to what was noted at a `place`."""
        known = set(self.noted(place))
        if not known:
            self._do("DELETE FROM notes_1 WHERE deadline < :now")
        for name, amount in amounts.items():
            if name not in known and len(known) >= most:
                continue
            known.add(name)
            self._do(
                "INSERT INTO notes_1 VALUES (:place, :name, :amount, :now + :kept) "
                "ON CONFLICT DO UPDATE SET amount = amount + excluded.amount, deadline = excluded.deadline",
                place=place,
                name=name,
                amount=amount,
                kept=seconds * 1000,
            )

    def noted(self, place: str) -> Mapping[str, int]:
        """Return the sums of what was noted at a `place`."""
        found = self._do("SELECT name, amount FROM notes_1 WHERE place = :place", place=place)
        return dict(found.fetchall())

    def _forget(self) -> None:
        for table in (*_TABLES, *line.TABLES):
            self._do(f"DELETE FROM {table}")  # noqa: S608 (our own names)

    def _is_waited(self, ask: Ask) -> bool:
        return ask.patience is not None or not self.line.is_empty()

    def _holding(self, lease: Lease) -> Admitted | None:
        """Return what the lease holds, None if it holds nothing."""
        found = self._do(
            "SELECT MAX(apart) FROM leases_1 WHERE id = :id AND NOT freed AND deadline >= :now", id=lease.id
        ).fetchone()
        if found[0] is None:
            return None
        held = replace(lease, apart=bool(found[0]))
        return Admitted(held, tuple(self.count(limit.scope) + held.is_apart(limit) for limit in held.limits))

    def _number(self, query: str, **values: object) -> int:
        found = self._do(query, **values).fetchone()
        return int(found[0] or 0) if found else 0

    def _do(self, statement: str, **values: object) -> sqlite3.Cursor:
        return self._cursor.execute(statement, self._times | values)


def _noted(places: Sequence[str], work: _Work) -> Sequence[Mapping[str, int]]:
    return [work.noted(place) for place in places]


def _place(lease: Lease, limit: Limit) -> dict[str, object]:
    return {"scope": limit.scope.key, "id": lease.id}


def _stored(text: str) -> str:
    """Return `text` as SQLite takes it: half a character, which JSON can carry, is no text there."""
    return text.encode(errors="replace").decode()


def check(path: Path) -> None:
    """Raise OSError or sqlite3.Error unless `path` is, or can become, a file for leases."""
    _create(path)
    if not os.access(path, os.W_OK):
        raise PermissionError(f"{path} cannot be written to")
    with closing(sqlite3.connect(path.absolute())) as connection:
        connection.execute("PRAGMA schema_version")


def _create(path: Path) -> None:
    """Make sure that there is a file, if need be one that nobody else may read: SQLite would let them."""
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def _connect(path: Path, timeout: float) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=timeout, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = OFF")  # a crash of the machine ends its requests as well
        with closing(connection.cursor()) as cursor, _transaction(cursor):
            for name, columns in _TABLES.items():
                cursor.execute(f"CREATE TABLE IF NOT EXISTS {name} {columns}")
            line.create(cursor)
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def _transaction(cursor: sqlite3.Cursor) -> Iterator[None]:
    cursor.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        cursor.execute("ROLLBACK")
        raise
    cursor.execute("COMMIT")


def _is_at(path: Path, opened: os.stat_result) -> bool:
    try:
        return os.path.samestat(path.stat(), opened)
    except FileNotFoundError:
        return False
