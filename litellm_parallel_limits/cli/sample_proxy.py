"""A proxy on the sample configuration, for as long as one looks at it."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import httpx

from litellm_parallel_limits.cli.exits import NotAnsweredError

SAMPLE = "sample_config.yaml"
KEY = "sk-parallel-limits-sample-only"
"""The master key in the sample configuration."""

START_SECONDS = 180.0
"""A proxy imports for 5 to 60 seconds, depending on the machine."""

_SERVICES = ("LITELLM_", "REDIS_", "DATABASE_", "NUM_WORKERS", "WEB_CONCURRENCY")


@contextlib.contextmanager
def sample_proxy(*, show_log: bool) -> Iterator[str]:
    """Run a proxy on a free port of this machine while the context lasts; yield its URL.

    Raises NotAnsweredError with its log if it does not start.
    """
    port = _free_port()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, SAMPLE)
        config.write_text(_sample())
        log = Path(folder, "log")
        with log.open("wb") as output:
            command = [sys.executable, "-c", "from litellm import run_server; run_server()"]
            process = subprocess.Popen(  # noqa: S603 (our own command)
                [*command, "--config", str(config), "--host", "127.0.0.1", "--port", str(port)],
                stdout=sys.stderr if show_log else output,
                stderr=sys.stderr if show_log else output,
                env=_environment(),
            )
            try:
                _wait(process, port, log)
                yield f"http://127.0.0.1:{port}"
            finally:
                _stop(process)


def _environment() -> dict[str, str]:
    """Return this environment without what would point the sample at somebody's real services."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_SERVICES)}
    return {**kept, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    with httpx.Client(trust_env=False, timeout=1) as client:
        while time.monotonic() < deadline:
            if process.poll() is not None:
                told = log.read_text(errors="replace")[-4000:]
                raise NotAnsweredError(f"The proxy did not start:\n{told}")
            with contextlib.suppress(httpx.HTTPError):
                if client.get(f"http://127.0.0.1:{port}/health/liveliness").is_success:
                    return
            time.sleep(0.2)
    raise NotAnsweredError(f"The proxy did not answer within {START_SECONDS:.0f} s")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _sample() -> str:
    """Return the sample configuration: in the installed package, or at the top of a checkout."""
    package = files("litellm_parallel_limits")
    installed = package / SAMPLE
    return (installed if installed.is_file() else Path(str(package)).parent / SAMPLE).read_text()
