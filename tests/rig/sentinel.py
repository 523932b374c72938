"""A Redis master with a replica, which three sentinels watch."""

from __future__ import annotations

import secrets
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis

from tests.rig.polling import until
from tests.rig.process import HOST, Server, environment, free_port
from tests.rig.redis_server import RedisServer, ask, connection, listens

SERVICE = "rig"
"""The name under which the sentinels know the master."""

DOWN_AFTER_MS = 1000
"""Without an answer, until a sentinel takes a master for dead."""

SENTINELS = 3
QUORUM = 2


@dataclass(frozen=True)
class Sentinel:
    """A running `redis-server --sentinel`; `client` is a connection to ask it."""

    server: Server
    port: int
    client: redis.Redis

    @classmethod
    def start(cls, folder: Path, port: int, lines: Sequence[str]) -> Sentinel:
        """Start a sentinel with these lines of configuration, that keeps its files in `folder`."""
        folder.mkdir()
        path = folder / "sentinel.conf"
        path.write_text("\n".join(lines) + "\n")
        server = Server.start(["redis-server", str(path), "--sentinel"], folder, environment())
        server.wait_until(lambda: listens(port), seconds=10)
        return cls(server, port, connection(port))

    def sees(self) -> dict[str, Any]:
        """Return what it says of the master and its replicas and sentinels."""
        state: dict[str, Any] = self.client.info("sentinel")["master0"]
        return state | {
            "links": [one.get("master-link-status") for one in self.client.sentinel_slaves(SERVICE)]
        }

    def is_ready(self) -> bool:
        """Whether it could put a replica in the place of the master."""
        seen = self.sees()
        return (seen["status"], seen["sentinels"], seen["links"]) == ("ok", SENTINELS, ["ok"])

    def stop(self) -> None:
        """End the process."""
        self.client.close()
        self.server.stop(seconds=1)


@dataclass
class Sentinels:
    """A master, its replica, and the sentinels that make the replica the master when it is gone.

    sentinels = Sentinels.start(folder)    # LiteLLM: sentinel_nodes=sentinels.nodes, service_name=SERVICE
    sentinels.kill_master()                # or hang_master(), or order_failover() of a master that is well
    await sentinels.failed_over()          # sentinels.master is now what was the replica
    sentinels.stop()
    """

    master: RedisServer
    replica: RedisServer
    sentinels: list[Sentinel]
    lost: list[Sentinel] = field(default_factory=list)

    @classmethod
    def start(cls, folder: Path, *, password: str | None = None) -> Sentinels:
        """Start all of them, and wait until they could fail over; `password` is that of the data nodes."""
        master = _data_node(folder / "one", password)
        replica = _data_node(folder / "two", password, replicaof=f"{HOST} {master.port}")
        replica.server.wait_until(lambda: replica.client.info()["master_link_status"] == "up", seconds=10)
        ids = {free_port(): secrets.token_hex(20) for _ in range(SENTINELS)}
        watch = _watch(master.port, replica.port, password)
        sentinels = [
            Sentinel.start(
                folder / f"sentinel-{port}", port, [*_self(port, ids), *watch, *_others(port, ids)]
            )
            for port in ids
        ]
        for one in sentinels:
            one.server.wait_until(one.is_ready, seconds=10)
        return cls(master, replica, sentinels)

    @property
    def nodes(self) -> list[tuple[str, int]]:
        """Where the sentinels listen."""
        return [(HOST, one.port) for one in self.sentinels]

    def kill_master(self) -> None:
        """End the master at once, as a crash does."""
        self.master.kill()

    def hang_master(self) -> None:
        """Let it answer no more, as if its machine or the way to it were gone."""
        self.master.hang()

    def kill_sentinel(self) -> None:
        """End the sentinel that clients ask first, which may have been on the master's machine."""
        self._lose_sentinel().server.kill()

    def hang_sentinel(self) -> None:
        """Let the sentinel that clients ask first answer no more, as if its machine were gone."""
        self._lose_sentinel().server.process.send_signal(signal.SIGSTOP)

    def order_failover(self) -> None:
        """Order the replica into the place of the master, which becomes its replica, as for maintenance."""
        ask(self.sentinels[0].client, "SENTINEL", "FAILOVER", SERVICE)

    async def failed_over(self, seconds: float = 20) -> None:
        """Return once the replica is the master, and every sentinel left sends clients there."""
        await until(self._is_failed_over, seconds, lambda: [one.sees() for one in self.sentinels])
        self.master, self.replica = self.replica, self.master

    def stop(self) -> None:
        """End every process."""
        for sentinel in (*self.sentinels, *self.lost):
            sentinel.stop()
        for node in (self.replica, self.master):
            node.stop()

    def _lose_sentinel(self) -> Sentinel:
        self.lost.append(self.sentinels.pop(0))
        return self.lost[-1]

    def _is_failed_over(self) -> bool:
        new = f"{HOST}:{self.replica.port}"
        return self.replica.client.info()["role"] == "master" and all(
            one.sees()["address"] == new for one in self.sentinels
        )


def _data_node(folder: Path, password: str | None, **options: object) -> RedisServer:
    folder.mkdir()
    return RedisServer.start(folder, password=password, options={"repl-diskless-sync-delay": 0, **options})


def _self(port: int, ids: dict[int, str]) -> list[str]:
    return [f"port {port}", f"bind {HOST}", f"sentinel myid {ids[port]}"]


def _watch(master: int, replica: int, password: str | None) -> list[str]:
    return [
        f"sentinel monitor {SERVICE} {HOST} {master} {QUORUM}",
        *([f"sentinel auth-pass {SERVICE} {password}"] if password else []),
        f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER_MS}",
        f"sentinel failover-timeout {SERVICE} {2 * DOWN_AFTER_MS}",
        f"sentinel known-replica {SERVICE} {HOST} {replica}",
    ]


def _others(port: int, ids: dict[int, str]) -> list[str]:
    """Return who the others are, which takes seconds to find out."""
    return [f"sentinel known-sentinel {SERVICE} {HOST} {at} {id_}" for at, id_ in ids.items() if at != port]
