"""Proxies that start at once: each imports for seconds, on a core of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from tests.rig.proxy import START_SECONDS, Proxy


@contextmanager
def together(launches: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, Proxy]]:
    """Start proxies, each from what `Proxy.launch` takes, and stop them at the end of the block."""
    with ExitStack() as running:
        proxies = {name: Proxy.launch(**launching) for name, launching in launches.items()}
        for proxy in proxies.values():
            running.callback(proxy.stop)
        for proxy in proxies.values():
            proxy.server.wait_until(proxy.is_alive, seconds=START_SECONDS)
        yield proxies
