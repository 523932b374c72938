"""What is done to a running rig."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from tests.load.backing import Clustered, Form, Relayed, Single, Watched
from tests.load.rig import Rig, workers_of


@dataclass(frozen=True)
class Fault:
    """`strike` does `what` to a rig of one of these `forms`, and returns when that is over."""

    name: str
    what: str
    strike: Callable[[Rig], Awaitable[None]]
    forms: tuple[Form, ...] = ("redis",)


async def kill_worker(rig: Rig) -> None:
    """Let the busiest worker die; its proxy starts another."""
    os.kill(busiest_worker(rig), signal.SIGKILL)


async def kill_proxy(rig: Rig) -> None:
    """Let a proxy die with all its workers; nobody starts another."""
    rig.proxies[0].server.kill()


async def stop_worker(rig: Rig) -> None:
    """Hold the busiest worker up for longer than its leases live."""
    await _hold_up(busiest_worker(rig), rig.ttl + 0.5)


def hold_redis_up(seconds: float) -> Callable[[Rig], Awaitable[None]]:
    """Return what holds Redis up for so long."""

    async def strike(rig: Rig) -> None:
        await _hold_up(_single(rig).server.server.process.pid, seconds)

    return strike


async def flush(rig: Rig) -> None:
    """Let Redis forget everything."""
    _single(rig).server.client.flushall()


async def flush_scripts(rig: Rig) -> None:
    """Let Redis forget the scripts."""
    _single(rig).server.client.script_flush()


async def restart_redis(rig: Rig) -> None:
    """Put an empty Redis in the place of the running one."""
    _single(rig).restart()


async def cut_calls(rig: Rig) -> None:
    """For 5 s break every third connection when Redis answers a call, and once all of them."""
    backing = rig.backing
    assert isinstance(backing, Relayed)
    backing.relay.lose_replies(probability=1 / 3)
    backing.relay.cut()
    await asyncio.sleep(5)
    backing.relay.lose_replies()


async def fail_over(rig: Rig) -> None:
    """Let the master die that sentinels watch."""
    backing = rig.backing
    assert isinstance(backing, Watched)
    backing.sentinels.kill_master()
    await backing.sentinels.failed_over()


async def lose_cluster_master(rig: Rig) -> None:
    """Let the master of a cluster die that has our leases."""
    backing = rig.backing
    assert isinstance(backing, Clustered)
    backing.cluster.kill_master()
    await backing.cluster.failed_over()


def busiest_worker(rig: Rig) -> int:
    """Return the process of the first proxy with the most connections."""
    return max(workers_of(rig.proxies[0]), key=lambda pid: len(list(Path(f"/proc/{pid}/fd").iterdir())))


async def _hold_up(pid: int, seconds: float) -> None:
    os.kill(pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(seconds)
    finally:
        os.kill(pid, signal.SIGCONT)


def _single(rig: Rig) -> Single:
    assert isinstance(rig.backing, Single)
    return rig.backing


FAULTS = {
    fault.name: fault
    for fault in (
        Fault("kill-worker", "kill -9 of one of the workers", kill_worker, ("redis", "host")),
        Fault("kill-proxy", "kill -9 of one of two proxies, all its processes", kill_proxy),
        Fault(
            "stop-worker",
            "SIGSTOP of one worker for 0.5 s longer than a lease lives",
            stop_worker,
            ("redis", "host"),
        ),
        Fault("stop-redis", "SIGSTOP of Redis for 5 s", hold_redis_up(5)),
        Fault("flush", "FLUSHALL", flush),
        Fault("flush-scripts", "SCRIPT FLUSH", flush_scripts),
        Fault("restart-redis", "restart of Redis, empty", restart_redis),
        Fault(
            "cut-calls", "connections cut in the middle of every third call, for 5 s", cut_calls, ("relay",)
        ),
        Fault("fail-over", "Sentinel: the master is killed", fail_over, ("sentinel",)),
        Fault(
            "lose-cluster-master", "Cluster: our slot's master is killed", lose_cluster_master, ("cluster",)
        ),
    )
}
