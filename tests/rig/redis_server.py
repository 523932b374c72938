"""A Redis server of our own, which keeps nothing on disk."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path

import redis

from tests.rig.process import HOST, Server, environment, free_port


@dataclass(frozen=True)
class RedisServer:
    """A running `redis-server`; `client` is a connection to look into it."""

    server: Server
    port: int
    client: redis.Redis

    @classmethod
    def start(cls, folder: Path, port: int | None = None) -> RedisServer:
        """Start a server, on a free port if none is given, that keeps its log in `folder`."""
        port = port or free_port()
        command = ["redis-server", "--port", str(port), "--bind", HOST, "--save", "", "--appendonly", "no"]
        server = Server.start(command, folder, environment())
        server.wait_until(lambda: _listens(port), seconds=10)
        return cls(server, port, redis.Redis(host=HOST, port=port, decode_responses=True))

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"redis://{HOST}:{self.port}/0"

    def stop(self) -> None:
        """End the process."""
        self.client.close()
        self.server.stop(seconds=1)


def _listens(port: int) -> bool:
    with socket.create_connection((HOST, port)):
        return True
