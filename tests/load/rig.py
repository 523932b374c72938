"""What runs under the load: the provider, what keeps the leases, and the proxies with their workers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from tests.load.backing import START, Backing, Form
from tests.load.holdings import Holdings, InRedis, InStatus
from tests.load.parties import MODEL
from tests.rig.config import config, deployment
from tests.rig.provider import Provider
from tests.rig.proxy import Proxy

TWO_PROXIES = (2, 2)
"""How many workers each has."""

WITHOUT_REDIS: Mapping[Form, tuple[int, ...]] = {"host": (4,), "memory": (1,)}
"""How many workers the only proxy has."""

TIMEOUT_MS = 250
"""Of the store: the package's own default."""

START_SECONDS = 180.0
"""Until all workers answer: each takes ten seconds of a processor."""


def usual_workers(form: Form) -> tuple[int, ...]:
    """Return how many workers each proxy has, if nothing else is said."""
    return WITHOUT_REDIS.get(form, TWO_PROXIES)


@dataclass
class Rig:
    """A provider, and proxies whose leases are kept in `backing` and live `ttl` seconds.

    `workers` says how many each proxy has, `timeout_ms` how long a request waits for the store. Every
    server's log is in a folder of its own below `folder`.
    """

    folder: Path
    form: Form
    ttl: float
    workers: Sequence[int]
    provider: Provider
    backing: Backing
    timeout_ms: int = TIMEOUT_MS
    proxies: list[Proxy] = field(default_factory=list)
    _launched: count[int] = field(default_factory=count)

    @classmethod
    @contextmanager
    def running(
        cls,
        folder: Path,
        form: Form,
        ttl: float,
        workers: Sequence[int] | None = None,
        timeout_ms: int = TIMEOUT_MS,
    ) -> Iterator[Rig]:
        """Start everything, and wait until every worker is ready."""
        provider = Provider.start(_new(folder / "provider"))
        backing = START[form](_new(folder / "backing"))
        rig = cls(folder, form, ttl, workers or usual_workers(form), provider, backing, timeout_ms)
        try:
            rig.mend()
            yield rig
        finally:
            rig.stop()

    def stop(self) -> None:
        """End every process."""
        for proxy in self.proxies:
            proxy.server.kill()
        self.backing.stop()
        self.provider.stop()

    def mend(self) -> None:
        """Start the proxies that are not there, and wait until every worker is ready."""
        self.proxies = self.living()
        self.proxies += [self._launch(number) for number in self.workers[len(self.proxies) :]]
        for proxy, number in zip(self.proxies, self.workers, strict=True):
            proxy.server.wait_until(lambda: is_ready(proxy, number), START_SECONDS)  # noqa: B023 (asked at once)

    def living(self) -> list[Proxy]:
        """Return the proxies that a balancer would send requests to."""
        return [proxy for proxy in self.proxies if proxy.server.process.poll() is None]

    def holdings(self) -> Holdings:
        """Return a view of the store."""
        if self.backing.port is None:
            return InStatus(self.proxies[0])
        return InRedis(lambda: self.backing.port)

    def _launch(self, number: int) -> Proxy:
        store = self.form if self.form in WITHOUT_REDIS else "redis"
        settings = config(
            self.provider.url,
            models=[deployment(MODEL, "openai/told", self.provider.url)],
            litellm_settings={
                "cache_params": {"mode": "default_off", **self.backing.cache_params},
                "parallel_limits": {
                    "store": store,
                    "lease_ttl": self.ttl,
                    "store_timeout_ms": self.timeout_ms,
                },
            },
        )
        folder = _new(self.folder / f"proxy-{next(self._launched)}")
        return Proxy.launch(folder, settings, workers=number)


def workers_of(proxy: Proxy) -> list[int]:
    """Return the processes that serve requests."""
    parent = proxy.server.process.pid
    started = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(pid) for pid in started if "spawn_main" in _command(pid)] or [parent]


def is_ready(proxy: Proxy, number: int) -> bool:
    """Whether so many workers are there, and each has started."""
    log, pids = proxy.log(), workers_of(proxy)
    begun, done = log.count("Started server process ["), log.count("Application startup complete")
    return len(pids) == number and begun == done and all(f"process [{pid}]" in log for pid in pids)


def _command(pid: str) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


def _new(folder: Path) -> Path:
    folder.mkdir()
    return folder
