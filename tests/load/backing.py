"""Where the leases are kept: a Redis of some form, or nothing beside the proxies themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Literal, Protocol

from tests.rig.cluster import Cluster
from tests.rig.process import HOST
from tests.rig.redis_server import RedisServer
from tests.rig.relay import Relay
from tests.rig.sentinel import SERVICE, Sentinels

Form = Literal["redis", "relay", "sentinel", "cluster", "host", "memory"]


class Backing(Protocol):
    """The servers below the proxies."""

    @property
    def cache_params(self) -> Mapping[str, Any]:
        """What LiteLLM is told of it."""
        ...

    @property
    def port(self) -> int | None:
        """Where the Redis with the leases listens now; None where there is none."""
        ...

    def stop(self) -> None:
        """End every process."""
        ...


class Nothing:
    """No Redis."""

    cache_params: Mapping[str, Any] = {"type": "local"}
    port = None

    def stop(self) -> None:
        """Do nothing."""


@dataclass
class Single:
    """One Redis."""

    folder: Path
    server: RedisServer
    _restarts: count[int] = field(default_factory=lambda: count(1))

    @classmethod
    def start(cls, folder: Path) -> Single:
        """Start it, with its log in `folder`."""
        return cls(folder, RedisServer.start(folder))

    @property
    def cache_params(self) -> Mapping[str, Any]:
        """Its own address."""
        return {"type": "redis", "host": HOST, "port": self.server.port}

    @property
    def port(self) -> int:
        """Its port."""
        return self.server.port

    def restart(self) -> None:
        """End it, and start another, empty one in its place."""
        folder = self.folder / f"restart-{next(self._restarts)}"
        folder.mkdir()
        self.server.stop()
        self.server = RedisServer.start(folder, self.server.port)

    def stop(self) -> None:
        """End the process."""
        self.server.stop()


@dataclass
class Relayed(Single):
    """One Redis behind a TCP proxy."""

    relay: Relay = field(kw_only=True)

    @classmethod
    def start(cls, folder: Path) -> Relayed:
        """Start both."""
        server = RedisServer.start(folder)
        return cls(folder, server, relay=Relay.start(server.port))

    @property
    def cache_params(self) -> Mapping[str, Any]:
        """The address of the TCP proxy."""
        return {"type": "redis", "host": HOST, "port": self.relay.port}

    def stop(self) -> None:
        """End both."""
        self.relay.stop()
        super().stop()


@dataclass(frozen=True)
class Watched:
    """A Redis, its replica and their sentinels."""

    sentinels: Sentinels

    @classmethod
    def start(cls, folder: Path) -> Watched:
        """Start all of them."""
        return cls(Sentinels.start(folder))

    @property
    def cache_params(self) -> Mapping[str, Any]:
        """The addresses of the sentinels."""
        nodes = [list(node) for node in self.sentinels.nodes]
        return {"type": "redis", "sentinel_nodes": nodes, "service_name": SERVICE}

    @property
    def port(self) -> int:
        """The port of the master."""
        return self.sentinels.master.port

    def stop(self) -> None:
        """End every process."""
        self.sentinels.stop()


@dataclass(frozen=True)
class Clustered:
    """A Redis Cluster."""

    cluster: Cluster

    @classmethod
    def start(cls, folder: Path) -> Clustered:
        """Start all of its nodes."""
        return cls(Cluster.start(folder))

    @property
    def cache_params(self) -> Mapping[str, Any]:
        """The addresses of the nodes."""
        return {"type": "redis", "redis_startup_nodes": self.cluster.startup_nodes}

    @property
    def port(self) -> int:
        """The port of the master that has our leases."""
        return self.cluster.master.port

    def stop(self) -> None:
        """End every process."""
        self.cluster.stop()


START: Mapping[Form, Callable[[Path], Backing]] = {
    "redis": Single.start,
    "relay": Relayed.start,
    "sentinel": Watched.start,
    "cluster": Clustered.start,
    "host": lambda _: Nothing(),
    "memory": lambda _: Nothing(),
}
