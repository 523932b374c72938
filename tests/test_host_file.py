"""The workers of one parent meet in one file, which no other user can reach."""

from __future__ import annotations

import multiprocessing
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from litellm_parallel_limits import host_file as module
from litellm_parallel_limits.host_file import host_file

NOBODY = 65_534

WORKER = """
import sys, tempfile
from pathlib import Path
from litellm_parallel_limits import host_file

host_file.MEMORY_FOLDER, tempfile.tempdir = Path(sys.argv[1]), sys.argv[2]
print(host_file.host_file(), flush=True)
"""
"""A worker that tells where its file is."""

PARENT = """
import subprocess, sys

def tell():
    subprocess.run([sys.executable, "-c", *sys.argv[1:]], check=True)

tell()
with open("/proc/self/comm", "w") as name:
    name.write(") S 1 (2")
tell()
sys.stdin.read()
"""
"""A parent of two workers, which gives itself another name between them, and ends when it is told to."""


@dataclass(frozen=True)
class Places:
    """Where a folder for the file can be."""

    memory: Path
    temporary: Path

    @property
    def folders(self) -> list[Path]:
        """The folders of this user, that which is tried first first."""
        return [place / f"litellm-parallel-limits-{os.getuid()}" for place in (self.memory, self.temporary)]


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    """Return places of this test's own."""
    places = Places(tmp_path / "memory", tmp_path / "temporary")
    for place in (places.memory, places.temporary):
        place.mkdir()
    monkeypatch.setattr(module, "MEMORY_FOLDER", places.memory)
    monkeypatch.setattr(tempfile, "tempdir", str(places.temporary))
    return places


def worker(places: Places) -> list[str]:
    """Return how a worker is asked where its file is."""
    return [WORKER, str(places.memory), str(places.temporary)]


def of_own_worker(places: Places) -> Path:
    """Return the file of a worker whose parent is this process."""
    command = [sys.executable, "-c", *worker(places)]
    return Path(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())


@contextmanager
def other_parent(places: Places) -> Iterator[list[Path]]:
    """Yield the files of the workers of another parent, which lives as long."""
    command = [sys.executable, "-c", PARENT, *worker(places)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        yield [Path(parent.stdout.readline().strip()) for _ in range(2)]
        parent.communicate()


def touched(file: Path) -> list[Path]:
    """Return a file and those that SQLite keeps beside it, which are there now."""
    files = [file, Path(f"{file}-wal"), Path(f"{file}-shm")]
    for one in files:
        one.touch()
    return files


def there(files: list[Path]) -> list[bool]:
    """Return which of some files are there."""
    return [file.exists() for file in files]


def test_workers_of_one_parent_have_one_file(places: Places) -> None:
    """Every worker of a parent finds the same file, whatever the parent calls itself."""
    assert of_own_worker(places) == of_own_worker(places)
    with other_parent(places) as (first, second):
        assert first == second


def test_workers_of_other_parents_have_other_files(places: Places) -> None:
    """Two proxies of one user on one machine do not count for one another."""
    with other_parent(places) as files, other_parent(places) as others:
        assert len({of_own_worker(places), files[0], others[0]}) == 3


def test_parent_is_who_made_the_worker(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that multiprocessing has made, maybe by another process, belongs to who asked for it."""
    expected = of_own_worker(places)
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: SimpleNamespace(pid=os.getpid()))
    assert host_file() == expected


def test_file_is_in_memory_in_a_folder_of_its_user(places: Places) -> None:
    """The file stands in memory, in a folder that is named after the user, who alone may open it."""
    folder = host_file().parent
    assert folder == places.folders[0]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_without_memory_the_file_is_a_temporary_one(places: Places) -> None:
    """On a machine that keeps no files in memory the file is with the temporary ones."""
    places.memory.rmdir()
    assert host_file().parent == places.folders[1]


def is_open_to_others(folder: Path) -> None:
    """Make a folder that others may look into."""
    folder.mkdir()
    folder.chmod(0o711)


def is_a_link(folder: Path) -> None:
    """Make a link to a folder that would do."""
    elsewhere = folder.with_name("elsewhere")
    elsewhere.mkdir(mode=0o700)
    folder.symlink_to(elsewhere)


def is_a_file(folder: Path) -> None:
    """Make a file."""
    folder.touch(mode=0o600)


def is_somebody_elses(folder: Path) -> None:
    """Make a folder of another user."""
    if os.getuid() != 0:
        pytest.skip("only root can give something away")
    folder.mkdir(mode=0o700)
    os.chown(folder, NOBODY, -1)


UNSAFE = [is_open_to_others, is_a_link, is_a_file, is_somebody_elses]


@pytest.mark.parametrize("is_unsafe", UNSAFE)
def test_unsafe_folder_is_not_used(places: Places, is_unsafe: Callable[[Path], None]) -> None:
    """What stands in the folder's place and is not this user's alone is left, and the next place tried."""
    first, second = places.folders
    is_unsafe(first)
    before = first.lstat()
    assert host_file().parent == second
    assert first.lstat().st_mode == before.st_mode
    assert not (first.is_dir() and list(first.iterdir()))


@pytest.mark.parametrize("is_unsafe", UNSAFE)
def test_no_safe_folder_is_an_error(places: Places, is_unsafe: Callable[[Path], None]) -> None:
    """Where no place is safe the error names each."""
    for folder in places.folders:
        is_unsafe(folder)
    with pytest.raises(OSError, match="alone") as failure:
        host_file()
    assert all(str(folder) in str(failure.value) for folder in places.folders)


def test_files_of_dead_parents_are_removed(places: Places) -> None:
    """What a proxy leaves behind that was killed goes when another starts, not while the first still runs."""
    with other_parent(places) as (file, _):
        files = touched(file)
        host_file()
        assert there(files) == [True, True, True]
    host_file()
    assert there(files) == [False, False, False]


def test_file_of_a_parent_whose_number_was_given_again_is_removed(places: Places) -> None:
    """A file is not kept because a process lives that has the number of the dead one's parent."""
    file = of_own_worker(places)
    namespace, parent, _ = file.stem.split("-")
    files = touched(file.with_name(f"{namespace}-{parent}-1.sqlite"))
    kept = touched(file)
    of_own_worker(places)
    assert there(files) == [False, False, False]
    assert there(kept) == [True, True, True]


def test_what_others_may_use_is_kept(places: Places) -> None:
    """Files of other containers, whose processes cannot be seen, and whatever else is there stay."""
    namespace = host_file().stem.partition("-")[0]
    names = [f"1{namespace}-1-1.sqlite", "notes.sqlite", f"{namespace}-notes-1.sqlite", "1-1.txt"]
    files = [places.folders[0] / name for name in names]
    for file in files:
        file.touch()
    host_file()
    assert all(there(files))


def test_nothing_is_removed_where_processes_cannot_be_seen(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a system that does not tell who lives there is a file, and every other one stays."""
    monkeypatch.setattr(module, "_PROCESSES", places.temporary / "proc")
    file = host_file()
    assert file == host_file()
    files = touched(file.with_name("0-1-1.sqlite"))
    host_file()
    assert all(there(files))
