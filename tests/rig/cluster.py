"""A Redis Cluster of three masters, each with a replica."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.rig.polling import until
from tests.rig.process import HOST, environment, free_port
from tests.rig.redis_server import RedisServer

KEY = "{litellm_parallel_limits}"
"""A key of our hash slot."""

NODE_TIMEOUT_MS = 1000
"""Without an answer, until the nodes take one of them for dead."""

NODES = 6
HIGHEST_PORT = 65535
BUS = 10000
"""What a node adds to its port for its talk with the other nodes."""


@dataclass
class Cluster:
    """Three masters, each with a replica; `master` is the one that has our slot.

    cluster = Cluster.start(folder)     # LiteLLM: redis_startup_nodes=cluster.startup_nodes
    cluster.kill_master()               # or hang_master()
    await cluster.failed_over()         # cluster.master is now what was its replica
    cluster.stop()
    """

    nodes: Sequence[RedisServer]
    master: RedisServer

    @classmethod
    def start(cls, folder: Path, *, password: str | None = None) -> Cluster:
        """Start the nodes, and wait until they are a cluster whose replicas could take over."""
        nodes = [_node(folder / f"node-{number}", password) for number in range(NODES)]
        _create([node.port for node in nodes], password)
        for node in nodes:
            node.server.wait_until(partial(_is_ready, node), seconds=20)
        return cls(nodes, _owner(nodes, nodes[0]))

    @property
    def startup_nodes(self) -> list[dict[str, object]]:
        """Where the nodes listen."""
        return [{"host": HOST, "port": node.port} for node in self.nodes]

    def kill_master(self) -> None:
        """End the master of our slot at once, as a crash does."""
        self.master.kill()

    def hang_master(self) -> None:
        """Let it answer no more, as if its machine or the way to it were gone."""
        self.master.hang()

    async def failed_over(self, seconds: float = 20) -> None:
        """Return once another node has our slot, and every node alive knows and agrees."""
        former = self.master
        alive = [node for node in self.nodes if node is not former and node.server.process.poll() is None]

        def owners() -> list[int]:
            return [_owner(self.nodes, node).port for node in alive]

        def agree() -> bool:
            return former.port not in owners() and len(set(owners())) == 1 and all(map(_is_ok, alive))

        await until(agree, seconds, owners)
        self.master = _owner(self.nodes, alive[0])

    def stop(self) -> None:
        """End every process."""
        for node in self.nodes:
            node.stop()


def _node(folder: Path, password: str | None) -> RedisServer:
    folder.mkdir()
    options = {
        "cluster-enabled": "yes",
        "cluster-node-timeout": NODE_TIMEOUT_MS,
        "cluster-allow-replica-migration": "no",  # each master keeps its replica
        "repl-diskless-sync-delay": 0,
    }
    return RedisServer.start(folder, _free_port_with_bus(), password=password, options=options)


def _free_port_with_bus() -> int:
    while True:
        port = free_port()
        with suppress(OSError), socket.socket() as bus:
            if port + BUS <= HIGHEST_PORT:
                bus.bind((HOST, port + BUS))
                return port


def _create(ports: Sequence[int], password: str | None) -> None:
    addresses = [f"{HOST}:{port}" for port in ports]
    command = ["redis-cli", "--cluster", "create", *addresses, "--cluster-replicas", "1", "--cluster-yes"]
    env = environment(**({"REDISCLI_AUTH": password} if password else {}))
    subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=30)


def _is_ready(node: RedisServer) -> bool:
    """Whether it sees the cluster as whole, and has what its master has, if it is a replica."""
    return _is_ok(node) and node.client.info("replication").get("master_link_status", "up") == "up"


def _is_ok(node: RedisServer) -> bool:
    return "cluster_state:ok" in str(node.ask("CLUSTER", "INFO"))


def _owner(nodes: Sequence[RedisServer], asked: RedisServer) -> RedisServer:
    """Return the node that has our slot, as the node `asked` sees it."""
    slot = int(asked.ask("CLUSTER", "KEYSLOT", KEY))
    ranges = asked.ask("CLUSTER", "SLOTS")
    port = next(master[1] for first, last, master, *_ in ranges if first <= slot <= last)
    return next(node for node in nodes if node.port == port)
