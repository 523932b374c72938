"""The file in which the workers of one proxy meet on one machine."""

from __future__ import annotations

import multiprocessing
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

MEMORY_FOLDER = Path("/dev/shm")  # noqa: S108 (what is made in it is checked)
"""Where files are memory on Linux: no lease outlives the machine, so none need be written to disk."""

_PROCESSES = Path("/proc")
_SUFFIX = ".sqlite"


def host_file() -> Path:
    """Return the file that all workers with this process' parent share, in a folder of this user's alone.

    Files of parents that are gone are removed. Raises OSError where there is no such folder.
    """
    folder = _folder()
    _remove_abandoned(folder)
    return folder / _name(_parent())


def _folder() -> Path:
    failures = []
    for place in (MEMORY_FOLDER, Path(tempfile.gettempdir())):
        folder = place / f"litellm-parallel-limits-{_user()}"
        try:
            return _own(folder)
        except OSError as error:
            failures.append(str(error))
    raise OSError("; ".join(failures))


def _own(folder: Path) -> Path:
    """Make the folder, or be sure that nobody else made it: both places are open to everybody."""
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != _user() or found.st_mode & 0o077:
        raise PermissionError(f"{folder} is not a folder of this user's alone")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"{folder} cannot be written to")
    return folder


def _user() -> int:
    return os.getuid() if hasattr(os, "getuid") else 0


def _parent() -> int:
    parent = multiprocessing.parent_process()  # not always who forked this process
    return parent.pid if parent is not None and parent.pid is not None else os.getppid()


def _name(parent: int) -> str:
    """Return the name of the file of a parent's workers, which no later process of its number has."""
    return f"{_namespace()}-{parent}-{_started(parent)}{_SUFFIX}"


def _namespace() -> str:
    """Return what tells containers apart that count their processes for themselves and share a folder."""
    try:
        return str((_PROCESSES / "self/ns/pid").stat().st_ino)
    except OSError:
        return "0"


def _started(process: int) -> str | None:
    """Return when a process started, in ticks since the machine did; None if it is not there."""
    try:
        status = (_PROCESSES / str(process) / "stat").read_text()
    except OSError:
        return None
    return status.rpartition(")")[2].split()[19]  # the 22nd field; the second may contain anything


def _remove_abandoned(folder: Path) -> None:
    if not (_PROCESSES / "self/stat").exists():
        return  # no way to tell
    for file in folder.glob(f"{_namespace()}-*{_SUFFIX}"):
        parent = file.stem.split("-")[1]
        if parent.isdecimal() and file.name != _name(int(parent)):
            for name in (file, Path(f"{file}-wal"), Path(f"{file}-shm")):
                name.unlink(missing_ok=True)
