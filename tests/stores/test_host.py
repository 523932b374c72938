"""What is special to the workers of one machine: their file, their clock, and how processes end."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from litellm_parallel_limits.errors import LeasesLostError, StoreError
from litellm_parallel_limits.limits import Refused
from litellm_parallel_limits.stores.host import HostBackend
from litellm_parallel_limits.stores.shared import SharedStore
from tests.clock import Clock
from tests.rig.polling import until
from tests.samples import lease, limit
from tests.stores.asking import admitted, answers, holders, renewed
from tests.stores.storages import PATIENCE, TTL, InFile, in_file, shared_store, tables

HASTE = 0.05
"""Seconds until a store gives up that is not to be waited for."""

CROWD = Path(__file__).with_name("crowd.py")

WRITER = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
connection.execute("CREATE TABLE half_done (number INT)")
print("writing", flush=True)
time.sleep(600)
"""
"""A worker that is in the midst of a call."""


@pytest.fixture
async def storage() -> AsyncIterator[InFile]:
    """Yield a file."""
    async with in_file() as storage:
        yield storage


@pytest.fixture
def store(storage: InFile) -> SharedStore:
    """Return a worker's store."""
    return storage.store("w1")


@pytest.fixture
async def hasty(storage: InFile) -> AsyncIterator[SharedStore]:
    """Yield the store of a worker that gives up soon."""
    backend = HostBackend(storage.path, ttl=TTL, timeout=HASTE)
    yield shared_store(backend, "hasty", timeout=HASTE)
    await backend.close()


@contextmanager
def writer(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a process that writes to the file and does not come to an end."""
    command = [sys.executable, "-c", WRITER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        yield process
        process.kill()


async def answering(store: SharedStore) -> None:
    """Return once a store answers again: the call that failed last may not be given up yet."""
    await until(lambda: answers(store), PATIENCE, lambda: "the store does not answer")


def rights(path: Path) -> int:
    """Return who may do what with a file."""
    return stat.S_IMODE(path.stat().st_mode)


async def test_killed_writer_holds_nobody_up(store: SharedStore, hasty: SharedStore, storage: InFile) -> None:
    """Others wait for a worker that is in the midst of a call, and go on at once where it is killed."""
    held = await admitted(store, lease(limit()))
    with writer(storage.path) as process:
        with pytest.raises(StoreError):
            await hasty.acquire(lease(limit()))
        asking = asyncio.create_task(store.acquire(lease(limit())))
        process.kill()
        assert await asking == Refused(limit(), 1)
    await answering(hasty)
    assert await holders(hasty) == {"team": {held.id}}


async def test_what_was_given_up_while_others_wrote_is_not_held(
    store: SharedStore, hasty: SharedStore, storage: InFile
) -> None:
    """A request that waited too long for others has nothing when it is their turn to wait."""
    await store.renew([])
    with writer(storage.path), pytest.raises(StoreError):
        await hasty.acquire(lease(limit()))
    await answering(hasty)
    assert await holders(store) == {}


async def test_processes_keep_the_limit_together(storage: InFile) -> None:
    """However many processes ask at once, never more hold a slot than the limit, and none is left over."""
    held = await asyncio.gather(*(crowd(storage.path, f"w{number}", capacity=3) for number in range(3)))
    assert all(held)
    assert most_at_once([times for some in held for times in some]) <= 3
    backend = HostBackend(storage.path, ttl=TTL, timeout=PATIENCE)
    assert await holders(shared_store(backend)) == {}
    await backend.close()


async def crowd(path: Path, worker: str, capacity: int) -> list[tuple[float, float]]:
    """Return from when to when a process, which asks time and again, held each of its leases."""
    command = [str(CROWD), str(path), worker, str(capacity), "60"]
    process = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=subprocess.PIPE)
    output, _ = await process.communicate()
    held: list[tuple[float, float]] = json.loads(output)
    return held


def most_at_once(held: list[tuple[float, float]]) -> int:
    """Return how many of these times lie over one another at most."""
    begun = sorted(since for since, _ in held)
    ended = sorted(until for _, until in held)
    return max(sum(since <= now for since in begun) - sum(until < now for until in ended) for now in begun)


@pytest.mark.parametrize("suffixes", [("",), ("", "-wal"), ("", "-wal", "-shm")])
async def test_deleted_file_is_a_loss_that_heals(
    store: SharedStore, storage: InFile, suffixes: tuple[str, ...]
) -> None:
    """Where the file, or more, is deleted, all workers meet in a new one, time and again."""
    other = storage.store("w2")
    held, theirs = [await admitted(each, lease(limit(capacity=2))) for each in (store, other)]
    for _ in range(3):
        for suffix in suffixes:
            storage.path.with_name(storage.path.name + suffix).unlink()
        with pytest.raises(LeasesLostError):
            await store.acquire(lease(limit(capacity=2)))
        for each, one in ((store, held), (other, theirs)):
            await renewed(each, one)
        for each in (store, other):
            assert await holders(each) == {"team": {held.id, theirs.id}}
            assert await each.acquire(lease(limit(capacity=2))) == Refused(limit(capacity=2), 2)


@pytest.mark.parametrize("suffixes", [(), ("-wal", "-shm")])
async def test_replaced_file_heals(store: SharedStore, storage: InFile, suffixes: tuple[str, ...]) -> None:
    """Where another file takes the place of the one in use, all workers meet in it."""
    other = storage.store("w2")
    held, theirs = [await admitted(each, lease(limit(capacity=2))) for each in (store, other)]
    async with in_file() as elsewhere:
        await elsewhere.store("w3").renew([])
        await elsewhere.close()
        elsewhere.path.replace(storage.path)
    for suffix in suffixes:
        storage.path.with_name(storage.path.name + suffix).unlink()
    for each, one in ((store, held), (other, theirs)):
        await renewed(each, one)
    for each in (store, other):
        assert await holders(each) == {"team": {held.id, theirs.id}}
        assert await each.acquire(lease(limit(capacity=2))) == Refused(limit(capacity=2), 2)


async def test_file_that_is_no_database_is_an_error(hasty: SharedStore, storage: InFile) -> None:
    """A file that holds something else is an error that does not say which, and stays as it is."""
    storage.path.write_text("a diary " * 1_000)
    for ask in (hasty.acquire(lease(limit())), hasty.renew([]), hasty.snapshot()):
        with pytest.raises(StoreError) as failure:
            await ask
        assert str(storage.path.parent) not in str(failure.value)
    assert storage.path.read_text() == "a diary " * 1_000


async def test_store_heals_when_the_file_can_be_made(hasty: SharedStore, storage: InFile) -> None:
    """Where there is no folder for the file there is no answer, until there is one."""
    folder = storage.path.parent
    folder.rmdir()
    with pytest.raises(StoreError):
        await hasty.acquire(lease(limit()))
    folder.mkdir()
    await answering(hasty)
    await admitted(hasty, lease(limit()))


async def test_place_that_vanished_is_made_again(storage: InFile) -> None:
    """Where the folder goes with the file, as a clean-up may take it, both are there for the next call."""
    folder = storage.path.parent
    prepared = partial(folder.mkdir, exist_ok=True)
    backend = HostBackend(storage.path, ttl=TTL, timeout=PATIENCE, prepare=prepared)
    store = shared_store(backend)
    held = await admitted(store, lease(limit()))
    shutil.rmtree(folder)
    await renewed(store, held)
    assert await holders(store) == {"team": {held.id}}
    await backend.close()


async def test_file_is_its_owners_alone(store: SharedStore, storage: InFile) -> None:
    """Nobody else may read or write the file and those that SQLite keeps beside it."""
    before = os.umask(0)
    try:
        await admitted(store, lease(limit()))
    finally:
        os.umask(before)
    files = list(storage.path.parent.iterdir())
    assert len(files) == 3
    assert {rights(file) for file in files} == {0o600}


@pytest.mark.parametrize("running", [20, 1_000, 100_000])
async def test_restart_of_the_machine_ends_every_lease(storage: InFile, running: float) -> None:
    """A clock that begins anew, however long it had run, lets every lease lapse and is no loss to anyone."""
    for uptime in (running, 10):
        backend = HostBackend(storage.path, ttl=TTL, clock=Clock(uptime))
        store = shared_store(backend, f"up for {uptime}")
        assert await holders(store) == {}
        assert store.workers == 1
        assert store.settled
        await admitted(store, lease(limit()))
        await backend.close()


async def test_closed_worker_can_begin_anew(storage: InFile) -> None:
    """What a worker held is there for its time to live, whether it closed the file or not."""
    backend = HostBackend(storage.path, ttl=TTL, clock=Clock())
    held = await admitted(shared_store(backend), lease(limit()))
    await backend.close()
    backend = HostBackend(storage.path, ttl=TTL, clock=Clock())
    assert await holders(shared_store(backend, "w2")) == {"team": {held.id}}
    await backend.close()


async def test_lapsed_leases_do_not_gather(store: SharedStore, storage: InFile) -> None:
    """A file that is in use has no more rows than there are leases, but for those that lapsed lately."""
    held = await admitted(store, lease(limit(capacity=99)))
    for _ in range(10):
        await admitted(store, lease(limit(capacity=99)))
        await storage.age(TTL - 10)
        await store.renew([held])
    with closing(sqlite3.connect(storage.path)) as connection:
        (leases,) = (name for name in tables(connection) if name.startswith("leases"))
        assert connection.execute(f"SELECT COUNT(*) FROM {leases}").fetchone()[0] < 5


IN_A_PROCESS = """
import asyncio, os, resource, sys
from pathlib import Path
from litellm_parallel_limits.errors import StoreError
from litellm_parallel_limits.limits import Lease, Limit, Scope
from litellm_parallel_limits.stores.host import HostBackend
from litellm_parallel_limits.stores.shared import SharedStore

async def main():
    path = Path(sys.argv[1])
    backend = HostBackend(path, ttl=30)
    store = SharedStore(backend, worker="w1", ttl=30)

    async def outcome():
        try:
            await store.renew([Lease(f"{number}", (Limit(Scope("team"), 9),)) for number in range(200)])
        except StoreError as error:
            return str(error).partition(":")[0]
        return "renewed"
{program}
    await backend.close()

asyncio.run(main())
"""

FULL_DISK = """
    print(await outcome())
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, before[1]))
    print(await outcome())
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    print(await outcome())
"""

NO_RIGHTS = """
    print(await outcome())
    await backend.close()
    path.chmod(0o400)
    if os.getuid() == 0:
        os.chown(path, 65534, -1)
        os.chown(path.parent, 65534, -1)
        os.setuid(65534)
    backend = HostBackend(path, ttl=30)
    store = SharedStore(backend, worker="w1", ttl=30)
    print(await outcome())
"""


@pytest.fixture
def outcomes() -> Iterator[Callable[[str], list[str]]]:
    """Return a function that returns what a program in a process of its own prints."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)

        def run(program: str) -> list[str]:
            command = [sys.executable, "-c", IN_A_PROCESS.format(program=program, number="{number}")]
            found = subprocess.run(
                [*command, f"{folder}/leases.sqlite"], capture_output=True, text=True, check=True, timeout=60
            )
            return found.stdout.splitlines()

        yield run


def test_full_disk_is_an_error_and_then_none(outcomes: Callable[[str], list[str]]) -> None:
    """Where there is no room for more there is no answer, until there is."""
    first, full, then = outcomes(FULL_DISK)
    assert (first, then) == ("renewed", "renewed")
    assert full == "host failed"


def test_file_that_may_not_be_written_is_an_error(outcomes: Callable[[str], list[str]]) -> None:
    """A file that this user may only read is an error."""
    assert outcomes(NO_RIGHTS) == ["renewed", "host failed"]
