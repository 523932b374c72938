"""Leases of the workers of one machine, in a SQLite file."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from litellm_parallel_limits.limits import Admitted, Answer, Lease, Limit, Refused, Scope
from litellm_parallel_limits.stores import Holding
from litellm_parallel_limits.stores.exchange import UNKNOWN, Exchange, Reply, settling_seconds

_TABLES = {
    "leases_1": """(
        scope TEXT, id TEXT, apart INT, worker TEXT, model TEXT, started INT, capacity INT,
        deadline INT, freed INT, PRIMARY KEY (scope, id)) WITHOUT ROWID""",
    "workers_1": "(worker TEXT PRIMARY KEY, number INT, deadline INT) WITHOUT ROWID",
    "epochs_1": "(epoch INT, called INT)",
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
        self._opened: tuple[sqlite3.Connection, os.stat_result] | None = None

    def now_ms(self) -> int:
        """Return the clock's time in milliseconds."""
        return max(1, int(self._clock() * 1000))

    async def exchange(self, exchange: Exchange) -> Reply:
        """Carry out a call as one."""
        return await self._run(lambda work: self._exchange(work, exchange))

    async def holdings(self) -> AsyncIterator[Sequence[Holding]]:
        """Yield every slot in use."""
        yield await self._run(_Work.holdings)

    async def free(self, scopes: Sequence[Scope], lease: str | None) -> int:
        """Free the slots in `scopes`, of `lease` only if one is named, and return how many there were."""
        return await self._run(lambda work: sum(work.free(scope, lease) for scope in scopes))

    async def close(self) -> None:
        """Close the file."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown()

    async def _run(self, work: Callable[[_Work], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._transact, work)

    def _transact(self, work: Callable[[_Work], _T]) -> _T:
        try:
            with closing(self._connection().cursor()) as cursor, _transaction(cursor):
                return work(_Work(cursor, self.now_ms(), self._ttl_ms))
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
        for lease in exchange.releases:
            work.release(lease)
        if exchange.epoch in {UNKNOWN, epoch}:  # as in exchange.lua
            for lease in exchange.renewals:
                work.hold(lease)
        is_settled = epoch < 0 or work.now - epoch >= self._settling_ms
        admits = exchange.epoch == epoch or (exchange.epoch == UNKNOWN and is_settled)
        answers = [work.admit(lease) if admits else None for lease in exchange.admissions]
        return Reply(work.now, workers, epoch, answers)


class _Work:
    """What is done in one transaction, at `now`; what is held or renewed in it lives for `ttl`, in ms."""

    def __init__(self, cursor: sqlite3.Cursor, now: int, ttl: int) -> None:
        self._cursor = cursor
        self.now = now
        self._times = {"now": now, "deadline": now + ttl}

    def begin(self, exchange: Exchange) -> tuple[int, int]:
        """Take note of the worker, and return how many live and the epoch, anew where leases were lost."""
        if self._number("SELECT called FROM epochs_1") > self.now:  # the machine, and its clock, began anew
            self._forget()
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

    def admit(self, lease: Lease) -> Answer:
        """Take one slot in each of the lease's limits, or none where an enforced one is full."""
        self.release(lease)  # of a call that was carried out before, and is made again
        counts = tuple(self._count(limit) for limit in lease.limits)
        full = [
            (limit, count)
            for limit, count in zip(lease.limits, counts, strict=True)
            if count >= limit.capacity
        ]
        for limit, count in full:
            if not limit.observed:
                return Refused(limit, count)
        lease = replace(lease, apart=bool(full))
        self.hold(lease)
        return Admitted(lease, tuple(count + 1 for count in counts))

    def free(self, scope: Scope, lease: str | None) -> int:
        """Free the slots in `scope`, of `lease` only if one is named."""
        self._do(
            "UPDATE leases_1 SET freed = 1, deadline = :deadline WHERE scope = :scope "
            "AND (:id IS NULL OR id = :id) AND NOT freed AND deadline >= :now",
            scope=scope.key,
            id=lease,
        )
        return self._cursor.rowcount

    def holdings(self) -> Sequence[Holding]:
        """Return every slot in use."""
        rows = self._do(
            "SELECT scope, id, worker, model, started, capacity FROM leases_1 "
            "WHERE NOT freed AND deadline >= :now"
        )
        return [Holding(Scope.parse(scope), *rest) for scope, *rest in rows]

    def _forget(self) -> None:
        for table in _TABLES:
            self._do(f"DELETE FROM {table}")  # noqa: S608 (our own names)

    def _count(self, limit: Limit) -> int:
        return self._number(
            "SELECT COUNT(*) FROM leases_1 WHERE scope = :scope "
            "AND NOT apart AND NOT freed AND deadline >= :now",
            scope=limit.scope.key,
        )

    def _number(self, query: str, **values: object) -> int:
        found = self._do(query, **values).fetchone()
        return int(found[0]) if found else 0

    def _do(self, statement: str, **values: object) -> sqlite3.Cursor:
        return self._cursor.execute(statement, self._times | values)


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
