"""LiteLLM's proxy in processes that find it imported: that takes longer than most tests.

They are forked from one that has imported it and done nothing else. Everything after the import is theirs:
LiteLLM's command line, its configuration, our package, and what they import further.
"""

from __future__ import annotations

import atexit
import os
import random
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from multiprocessing import context, forkserver, get_context, process
from pathlib import Path
from unittest import mock

IMPORTED = ["litellm.proxy.proxy_server", "litellm.proxy.proxy_cli", "uvicorn"]


@dataclass(frozen=True)
class WarmProcess:
    """A process, told what to do as `subprocess.Popen` would be."""

    child: context.ForkServerProcess
    args: Sequence[str]

    @classmethod
    def litellm(
        cls, arguments: Sequence[str], folder: Path, env: Mapping[str, str], log: Path
    ) -> WarmProcess:
        """Start LiteLLM in `folder` with these `arguments` of its command line; `log` is a file."""
        child = _forking(tuple(sorted(env.items()))).Process(
            target=_serve, args=(arguments, folder, env, log)
        )
        child.start()
        started = cls(child, ["litellm", *arguments])
        atexit.register(started.kill)  # or what is left over is waited for
        return started

    @property
    def pid(self) -> int:
        """Its number, and that of the group that it leads."""
        assert self.child.pid is not None
        return self.child.pid

    def poll(self) -> int | None:
        """Return its exit code if it has ended."""
        return self.child.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Return its exit code once it has ended. Raises subprocess.TimeoutExpired if it does not."""
        self.child.join(timeout)
        if self.child.exitcode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return self.child.exitcode

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it and its group at once, if it runs."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)


@cache
def _forking(env: tuple[tuple[str, str], ...]) -> context.ForkServerContext:
    """Return what forks a process that has imported LiteLLM in this environment, once for all."""
    forking = get_context("forkserver")
    forking.set_forkserver_preload(IMPORTED)
    with mock.patch.dict(os.environ, dict(env), clear=True):
        forkserver.ensure_running()
    return forking


def _serve(arguments: Sequence[str], folder: Path, env: Mapping[str, str], log: Path) -> None:
    os.setsid()
    os.chdir(folder)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdin = os.fdopen(0)  # where servers look for what their workers are to inherit
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.environ.clear()
    os.environ.update(env)
    random.seed()
    vars(process)["_parent_process"] = None  # or it would pass for one of several workers of its parent
    sys.path.insert(0, "")
    sys.argv = ["litellm", *arguments]
    from litellm import run_server  # noqa: PLC0415 (there)

    try:
        run_server()
    finally:
        atexit._run_exitfuncs()  # noqa: SLF001 (a forked process does not)
