"""A Redis server of our own, which keeps nothing on disk."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from tests.rig.certificates import Certificates
from tests.rig.process import HOST, Server, environment, free_port


@dataclass(frozen=True)
class RedisServer:
    """A running `redis-server`; `client` is a connection to look into it."""

    server: Server
    port: int
    client: redis.Redis

    @classmethod
    def start(
        cls,
        folder: Path,
        port: int | None = None,
        *,
        password: str | None = None,
        certificates: Certificates | None = None,
        options: Mapping[str, object] | None = None,
    ) -> RedisServer:
        """Start a server, on a free port if none is given, that keeps its files in `folder`.

        It asks for `password`, and speaks nothing but TLS with `certificates`, where they are given.
        `options` are further lines of its configuration.
        """
        port = port or free_port()
        lines = {
            "bind": HOST,
            "save": '""',
            "appendonly": "no",
            "dir": f'"{folder}"',
            **_door(port, certificates),
        }
        lines |= {"requirepass": password, "masterauth": password} if password else {}
        path = folder / "redis.conf"
        path.write_text(configuration(lines | dict(options or {})))
        server = Server.start(["redis-server", str(path)], folder, environment())
        server.wait_until(lambda: listens(port), seconds=10)
        return cls(server, port, connection(port, password, certificates))

    @property
    def url(self) -> str:
        """Where it listens, if it asks for neither a password nor TLS."""
        return f"redis://{HOST}:{self.port}/0"

    def ask(self, *words: str) -> Any:
        """Return its answer to any command."""
        return ask(self.client, *words)

    def stop(self) -> None:
        """End the process."""
        self.client.close()
        self.server.stop(seconds=1)

    def kill(self) -> None:
        """End the process at once, as a crash does."""
        self.client.close()
        self.server.kill()

    def hang(self) -> None:
        """Stop answering, while connections stay open and new ones are accepted, until `wake`."""
        self.server.process.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        """Answer again, what was asked meanwhile too."""
        self.server.process.send_signal(signal.SIGCONT)


def connection(
    port: int, password: str | None = None, certificates: Certificates | None = None
) -> redis.Redis:
    """Return a connection to look into the server at `port`."""
    tls: dict[str, Any] = {"ssl": True, "ssl_ca_certs": str(certificates.authority)} if certificates else {}
    return redis.Redis(host=HOST, port=port, password=password, decode_responses=True, **tls)


def ask(client: redis.Redis, *words: str) -> Any:
    """Return the answer to any command."""
    execute: Callable[..., Any] = client.execute_command
    return execute(*words)


def configuration(lines: Mapping[str, object]) -> str:
    """Return the text of a configuration file."""
    return "".join(f"{name} {value}\n" for name, value in lines.items())


def listens(port: int) -> bool:
    """Whether somebody listens at `port`. Raises OSError if nobody does."""
    with socket.create_connection((HOST, port)):
        return True


def _door(port: int, certificates: Certificates | None) -> dict[str, object]:
    if certificates is None:
        return {"port": port}
    return {
        "port": 0,
        "tls-port": port,
        "tls-cert-file": f'"{certificates.certificate}"',
        "tls-key-file": f'"{certificates.key}"',
        "tls-ca-cert-file": f'"{certificates.authority}"',
        "tls-auth-clients": "no",
    }
