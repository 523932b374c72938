"""Servers as child processes on ports of 127.0.0.1."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.rig.warm import WarmProcess

HOST = "127.0.0.1"
PORTS = range(12_000, 22_000)
"""Below those that Linux gives to outgoing connections, also with the 10,000 that Redis Cluster adds."""

INHERITED = ("HOME", "LANG", "LC_ALL", "PATH", "PYTHONPATH", "TMPDIR", "VIRTUAL_ENV")
"""What a server sees of our environment: nothing that configures LiteLLM, Redis or a provider."""


class StartError(Exception):
    """A server ended, or did not answer in time; the message holds its output."""


def free_port() -> int:
    """Return a port that nobody listens on, nor is given for a connection before somebody does."""
    while True:
        port = random.SystemRandom().choice(PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind((HOST, port))
            return port


def environment(**additions: str) -> dict[str, str]:
    """Return a clean environment with `additions`."""
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    return inherited | {"NO_PROXY": "*", "PYTHONUNBUFFERED": "1"} | additions


@dataclass(frozen=True)
class Server:
    """A running child process that leads its own process group; its output goes to the file `log`."""

    process: subprocess.Popen[bytes] | WarmProcess
    log: Path

    @classmethod
    def start(cls, command: Sequence[str], folder: Path, env: Mapping[str, str]) -> Server:
        """Start `command` in `folder`, where its log is kept, without waiting for it to answer."""
        log = folder / "server.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return cls(process, log)

    @classmethod
    def litellm(cls, arguments: Sequence[str], folder: Path, env: Mapping[str, str]) -> Server:
        """Start LiteLLM with these arguments of its command line in the same way, but imported already."""
        log = folder / "server.log"
        return cls(WarmProcess.litellm(arguments, folder, env, log), log)

    def output(self) -> str:
        """Return everything it has written so far."""
        return self.log.read_text(errors="replace")

    def wait_until(self, ready: Callable[[], bool], seconds: float) -> None:
        """Return once `ready`. Raises StartError, and leaves no process behind, if that never comes."""
        deadline = time.monotonic() + seconds
        while not _answers(ready):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise StartError(f"{self.process.args!r} does not answer:\n{self.output()}")
            time.sleep(0.05)

    def wait(self, seconds: float) -> int:
        """Return its exit code, once it has ended by itself."""
        return self.process.wait(seconds)

    def stop(self, seconds: float = 5) -> None:
        """End it: by SIGTERM, and what is left of its group after `seconds` by SIGKILL."""
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        self.kill()

    def kill(self) -> None:
        """End it and its children at once."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def _answers(ready: Callable[[], bool]) -> bool:
    try:
        return ready()
    except (OSError, httpx.TransportError):
        return False
