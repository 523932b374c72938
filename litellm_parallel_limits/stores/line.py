"""Those that wait in a store of this machine, in SQL. What it does, queue.lua does in Redis, in the same way.

A *lane* is a line of requests that can all go on when its first can. It stands at the limit that it
waits for, at its own number of it. There lanes of one *flow* take turns with those of others: the flow goes
first that has gone longest without a turn, and in it the request that came first. A lane whose turn
it is, but that lacks a slot in another limit, goes and stands there; after some turns missed it closes its
limits to everybody else until its first has been admitted.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from litellm_parallel_limits.limits import Lease, Limit, Patience, Scope
from litellm_parallel_limits.stores.order import MOST_PASSES, MOST_TURNS, PRIORITY_SECONDS, lane

TABLES = {
    "waiters_1": """(
        id TEXT PRIMARY KEY, lane TEXT, came INT, worker TEXT, model TEXT, started INT) WITHOUT ROWID""",
    "lanes_1": """(
        lane TEXT PRIMARY KEY, home TEXT, flow TEXT, priority INT, limits TEXT, scope TEXT, number INT,
        passes INT) WITHOUT ROWID""",
    "turns_1": """(
        scope TEXT, number INT, flow TEXT, rank INT, PRIMARY KEY (scope, number, flow)) WITHOUT ROWID""",
    "waiting_1": "(scope TEXT, worker TEXT, number INT, PRIMARY KEY (scope, worker)) WITHOUT ROWID",
    "closed_1": "(scope TEXT PRIMARY KEY, lane TEXT) WITHOUT ROWID",
    "alarms_1": "(scope TEXT PRIMARY KEY, due INT) WITHOUT ROWID",
}
"""Who changes a table gives it the next number: workers of an older version may use the file as well."""

INDEXES = {
    "waiters_1_lane": "waiters_1 (lane, came)",
    "lanes_1_place": "lanes_1 (scope, number, flow)",
    "turns_1_rank": "turns_1 (scope, rank, number)",
}


class Slots(Protocol):
    """The slots of the store, and its workers."""

    def count(self, scope: Scope) -> int:
        """Return how many leases are compared with a limit of `scope`."""
        ...

    def grant(self, lease: Lease) -> None:
        """Give the lease its slots, and tell its worker."""
        ...

    def lapses_at(self, scope: Scope) -> int:
        """Return when the next lease in `scope` lapses, in ms."""
        ...

    def is_live(self, worker: str) -> bool:
        """Whether the worker has called within a time to live."""
        ...


@dataclass(slots=True)
class Ticks:
    """The time of `clock`, in µs, and never twice the same."""

    clock: Callable[[], float]
    _last: int = 0

    def __call__(self) -> int:
        """Return the time."""
        self._last = max(self._last + 1, int(self.clock() * 1e6))
        return self._last


@dataclass(frozen=True, slots=True)
class _Lane:
    id: str
    scope: str
    number: int
    flow: str
    priority: int
    limits: tuple[Limit, ...]
    passes: int
    rank: int
    came: int

    @classmethod
    def of(cls, row: Sequence[Any]) -> _Lane:
        id_, scope, number, flow, priority, limits, *rest = row
        return cls(id_, scope, number, flow, priority, _limits(limits), *rest)


_LANES = """
SELECT lane, scope, number, flow, priority, limits, passes, rank,
    (SELECT MIN(came) FROM waiters_1 WHERE waiters_1.lane = lanes_1.lane) AS first
FROM turns_1 JOIN lanes_1 USING (scope, number, flow)
"""
_CLOSER = f"{_LANES} WHERE lane = ? AND scope = ? AND number > ?"
_FIRST_LANE = f"""{_LANES} WHERE scope = ? AND number > ?
AND rank = (SELECT rank FROM turns_1 WHERE scope = ? AND number > ? ORDER BY rank LIMIT 1)
ORDER BY first LIMIT 1"""  # noqa: S608 (our own words)


class Line:
    """Those that wait, in the database of `cursor`, at `now` in ms. Everything happens in one transaction.

    `tick` gives the time in µs, each time another.
    """

    def __init__(self, cursor: sqlite3.Cursor, slots: Slots, *, now: int, tick: Callable[[], int]) -> None:
        self._cursor = cursor
        self._slots = slots
        self._now = now
        self._tick = tick
        self._unfinished: set[Scope] = set()

    def is_empty(self) -> bool:
        """Whether nobody waits."""
        return self._one("SELECT 1 FROM alarms_1 LIMIT 1") is None

    def closed(self, scope: Scope, lane: str = "") -> bool:
        """Whether `scope` is kept free for another than `lane`."""
        found = self._one("SELECT lane FROM closed_1 WHERE scope = ?", scope.key)
        return (found is not None and found[0] != lane) or scope in self._unfinished

    def waiting(self, scope: Scope) -> int:
        """Return how many wait that came for a slot in `scope`, and whose worker lives."""
        found = self._do("SELECT worker, number FROM waiting_1 WHERE scope = ?", scope.key)
        return sum(number for worker, number in found.fetchall() if self._slots.is_live(worker))

    def home(self, lease: Lease) -> Limit | None:
        """Return the limit for which the lease came, if it waits; else None."""
        found = self._one("SELECT lane FROM waiters_1 WHERE id = ?", lease.id)
        return None if found is None else lease.limits[int(found[0].rpartition(":")[2])]

    def bury(self) -> Sequence[Limit]:
        """Drop the dead for whom limits are closed, and return the limits that this opens."""
        opened: list[Limit] = []
        for (name,) in self._do("SELECT DISTINCT lane FROM closed_1").fetchall():
            first = self._first(name)
            if first is not None and not self._slots.is_live(first[1]):
                opened += self._drop(first[0], name)
        return opened

    def join(self, lease: Lease, home: Limit, patience: Patience) -> None:
        """Let the lease wait for a slot in `home`, the first of its limits that has none for it."""
        assert home.wait is not None  # noqa: S101 (else it is refused)
        name = f"{lane(lease.limits, patience)}:{lease.limits.index(home)}"
        came = self._tick() - int(patience.waited * 1e6)
        self._do(
            "INSERT INTO waiters_1 VALUES (?, ?, ?, ?, ?, ?)",
            *(lease.id, name, came, lease.worker, lease.model, lease.started_ms),
        )
        self._do(
            "INSERT INTO waiting_1 VALUES (?, ?, 1) "
            "ON CONFLICT (scope, worker) DO UPDATE SET number = number + 1",
            *(home.scope.key, lease.worker),
        )
        flow = f"{patience.priority}:{home.wait.flow}"
        created = self._do(
            "INSERT OR IGNORE INTO lanes_1 VALUES (?, ?, ?, ?, ?, NULL, NULL, 0)",
            *(
                name,
                home.scope.key,
                flow,
                patience.priority,
                _told(lease.limits),
            ),
        )
        rank = came + patience.priority * PRIORITY_SECONDS * 1_000_000
        if created.rowcount:
            self._stand(name, home, rank)
        self._do(  # who has waited elsewhere may come before those that are there
            "UPDATE turns_1 SET rank = MIN(rank, ?) WHERE (scope, number, flow) = "
            "(SELECT scope, number, flow FROM lanes_1 WHERE lane = ?)",
            *(rank, name),
        )

    def leave(self, lease: str) -> Sequence[Limit]:
        """Let the lease wait no longer, and return the limits that this opens to others.

        Unknown leases are ignored.
        """
        found = self._one("SELECT lane FROM waiters_1 WHERE id = ?", lease)
        return () if found is None else self._drop(lease, found[0])

    def alarm(self, earliest: int = 0) -> int:
        """Return when turns are to be given again, in ms and not before `earliest`; 0 if nobody waits."""
        due = self._one("SELECT MIN(due) FROM alarms_1")[0]
        return 0 if due is None else max(due, earliest)

    def postpone(self, freed: Iterable[Scope]) -> None:
        """Let turns at `freed` be given later, and nobody overtake those that wait there."""
        waited = [scope for scope in freed if self._one("SELECT 1 FROM turns_1 WHERE scope = ?", scope.key)]
        self._set_alarms(waited, lambda _: self._now - 1)
        self._unfinished |= set(waited)

    def serve(self, freed: Iterable[Scope] = ()) -> None:
        """Give turns to those that wait for a slot in `freed`, or where leases may have lapsed.

        As many as one call may; the others are to be given later.
        """
        due = self._do(
            "SELECT scope FROM alarms_1 WHERE due < ? ORDER BY due LIMIT ?", self._now, MOST_TURNS
        ).fetchall()
        scopes = {scope.key: scope for scope in (*freed, *(Scope.parse(key) for (key,) in due))}
        known: dict[str, _Lane | None] = {}
        for _ in range(MOST_TURNS):
            known |= {key: self._next(scope) for key, scope in scopes.items() if key not in known}
            lanes = filter(None, known.values())
            first = min(lanes, key=lambda lane: (lane.rank, lane.came, lane.scope), default=None)
            if first is None:
                self._set_alarms(scopes.values(), self._slots.lapses_at)
                break
            scopes |= {limit.scope.key: limit.scope for limit in self._turn(first)}
            for limit in first.limits:
                known.pop(limit.scope.key, None)  # all that a turn changes
        else:
            self.postpone(scopes.values())

    def _set_alarms(self, scopes: Iterable[Scope], due: Callable[[Scope], int]) -> None:
        for scope in scopes:
            if self._one("SELECT 1 FROM turns_1 WHERE scope = ?", scope.key):
                self._do("REPLACE INTO alarms_1 VALUES (?, ?)", scope.key, due(scope))
            else:
                self._do("DELETE FROM alarms_1 WHERE scope = ?", scope.key)

    def _next(self, scope: Scope) -> _Lane | None:
        """Return the lane that is next at `scope`, None if none stands there that there is room for."""
        count = self._slots.count(scope)
        most = self._one("SELECT MAX(number) FROM turns_1 WHERE scope = ?", scope.key)[0]
        if most is None or most <= count:
            return None
        closed = self._one("SELECT lane FROM closed_1 WHERE scope = ?", scope.key)
        if closed is not None:
            found = self._one(
                f"{_LANES} WHERE lane = ? AND scope = ? AND number > ?", *closed, scope.key, count
            )
        else:
            found = self._one(_FIRST_LANE, *(scope.key, count) * 2)
        return None if found is None else _Lane.of(found)

    def _turn(self, lane: _Lane) -> Sequence[Limit]:
        """Admit the first of `lane`, or let it stand where it lacks a slot; return the limits this opens."""
        first = self._first(lane.id)
        assert first is not None  # noqa: S101 (a lane ends with the last who waits in it)
        id_, worker, model, started = first
        if not self._slots.is_live(worker):
            return self._drop(id_, lane.id)
        lacking = next((limit for limit in lane.limits if self._lacks(limit, lane.id)), None)
        if lacking is not None:
            return self._miss(lane, lacking)
        self._slots.grant(Lease(id_, lane.limits, worker, model, started))
        rank = self._tick() + lane.priority * PRIORITY_SECONDS * 1_000_000
        self._do(
            "UPDATE turns_1 SET rank = ? WHERE scope = ? AND number = ? AND flow = ?",
            *(rank, lane.scope, lane.number, lane.flow),
        )
        return self._drop(id_, lane.id)

    def _first(self, lane: str) -> Any:
        """Return who is first of a lane: id, worker, model, and when it asked."""
        return self._one(
            "SELECT id, worker, model, started FROM waiters_1 WHERE lane = ? ORDER BY came LIMIT 1", lane
        )

    def _lacks(self, limit: Limit, lane: str) -> bool:
        if limit.observed:
            return False
        return self._slots.count(limit.scope) >= limit.capacity or self.closed(limit.scope, lane)

    def _miss(self, lane: _Lane, lacking: Limit) -> Sequence[Limit]:
        """Let `lane` stand at the limit that is `lacking`; close its limits if it missed too many turns."""
        self._do("UPDATE lanes_1 SET passes = passes + 1 WHERE lane = ?", lane.id)
        enforced = [limit.scope for limit in lane.limits if not limit.observed]
        if lane.passes + 1 >= MOST_PASSES and not any(self.closed(scope, lane.id) for scope in enforced):
            for scope in enforced:
                self._do("REPLACE INTO closed_1 VALUES (?, ?)", scope.key, lane.id)
        self._stand(lane.id, lacking, lane.rank)
        self._forget_flow(lane.scope, lane.number, lane.flow)
        return ()

    def _stand(self, lane: str, limit: Limit, rank: int) -> None:
        place = (limit.scope.key, limit.capacity)
        self._do("UPDATE lanes_1 SET scope = ?, number = ? WHERE lane = ?", *place, lane)
        self._do(
            "INSERT OR IGNORE INTO turns_1 SELECT ?, ?, flow, ? FROM lanes_1 WHERE lane = ?",
            *(*place, rank, lane),
        )
        self._do(
            "INSERT OR IGNORE INTO alarms_1 VALUES (?, ?)",
            *(limit.scope.key, self._slots.lapses_at(limit.scope)),
        )

    def _drop(self, lease: str, lane: str) -> Sequence[Limit]:
        """Take the lease out of its lane; return the limits that this opens to others."""
        first = self._first(lane)
        home, *place, limits = self._one(
            "SELECT home, scope, number, flow, limits FROM lanes_1 WHERE lane = ?", lane
        )
        self._uncount(home, lease)
        self._do("DELETE FROM waiters_1 WHERE id = ?", lease)
        if first[0] != lease:
            return ()
        if self._one("SELECT 1 FROM waiters_1 WHERE lane = ?", lane):
            self._do("UPDATE lanes_1 SET passes = 0 WHERE lane = ?", lane)
        else:
            self._do("DELETE FROM lanes_1 WHERE lane = ?", lane)
            self._forget_flow(*place)
        return _limits(limits) if self._do("DELETE FROM closed_1 WHERE lane = ?", lane).rowcount else ()

    def _uncount(self, home: str, lease: str) -> None:
        (worker,) = self._one("SELECT worker FROM waiters_1 WHERE id = ?", lease)
        place = (home, worker)
        self._do("UPDATE waiting_1 SET number = number - 1 WHERE scope = ? AND worker = ?", *place)
        self._do("DELETE FROM waiting_1 WHERE scope = ? AND worker = ? AND number < 1", *place)

    def _forget_flow(self, scope: str, number: int, flow: str) -> None:
        """Forget the turns of a flow of which no lane stands there any more."""
        self._do(
            "DELETE FROM turns_1 WHERE scope = ?1 AND number = ?2 AND flow = ?3 AND NOT EXISTS "
            "(SELECT 1 FROM lanes_1 WHERE scope = ?1 AND number = ?2 AND flow = ?3)",
            *(scope, number, flow),
        )

    def _one(self, query: str, *values: object) -> Any:
        return self._do(query, *values).fetchone()

    def _do(self, statement: str, *values: object) -> sqlite3.Cursor:
        return self._cursor.execute(statement, values)


def create(cursor: sqlite3.Cursor) -> None:
    """Make the tables of those that wait, where there are none."""
    for name, columns in TABLES.items():
        cursor.execute(f"CREATE TABLE IF NOT EXISTS {name} {columns}")
    for name, columns in INDEXES.items():
        cursor.execute(f"CREATE INDEX IF NOT EXISTS {name} ON {columns}")


def _told(limits: Sequence[Limit]) -> str:
    return json.dumps([(limit.scope.key, limit.capacity, limit.mode) for limit in limits])


def _limits(told: str) -> tuple[Limit, ...]:
    return tuple(Limit(Scope.parse(key), capacity, mode) for key, capacity, mode in json.loads(told))
