"""The servers that the tests share, each started once when it is first asked for."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

TOP = Path(__file__).parents[1]
sys.path.append(str(TOP))  # last: what is tested is the package as it is installed, not the folder beside us
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # LiteLLM looks for the internet when it is imported

from tests.rig.config import config
from tests.rig.provider import Provider
from tests.rig.proxy import Proxy
from tests.rig.redis_server import RedisServer

KEEP_ALIVE = {"sse_keepalive_ping_interval_seconds": 0.2}

UNFORKED: Mapping[str, str] = {}
"""Of proxies that break off hundreds of answers: in forked ones the garbage collector of Python crashes."""

StartProxy = Callable[..., Proxy]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what the LiteLLM that is installed cannot do."""
    left_out = [item for item in items if any(not mark.args[0] for mark in item.iter_markers("needs"))]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in set(left_out)]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that makes a new folder."""
    return tmp_path_factory.mktemp


@pytest.fixture(scope="session")
def provider(folder: Callable[[str], Path]) -> Iterator[Provider]:
    """A provider that counts what it holds."""
    provider = Provider.start(folder("provider"))
    yield provider
    provider.stop()


@pytest.fixture(scope="session")
def redis_server(folder: Callable[[str], Path]) -> Iterator[RedisServer]:
    """A real Redis server."""
    server = RedisServer.start(folder("redis"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def start_proxy(provider: Provider, folder: Callable[[str], Path]) -> Iterator[StartProxy]:
    """Return a function that starts a proxy from what `config` takes; it runs until the session ends."""
    with ExitStack() as running:

        def start(
            *,
            workers: int = 1,
            flags: Sequence[str] = (),
            env: Mapping[str, str] | None = None,
            **settings: Any,
        ) -> Proxy:
            configured = config(provider.url, **settings)
            proxy = Proxy.start(folder("proxy"), configured, workers=workers, flags=flags, env=env)
            running.callback(proxy.stop)
            return proxy

        yield start


@pytest.fixture(scope="session")
def memory_proxy(start_proxy: StartProxy) -> Proxy:
    """A proxy without Redis."""
    return start_proxy(env=UNFORKED)


@pytest.fixture(scope="session")
def redis_proxy(start_proxy: StartProxy, redis_server: RedisServer) -> Proxy:
    """A proxy with Redis."""
    return start_proxy(redis_port=redis_server.port, env=UNFORKED)


@pytest.fixture(scope="session")
def memory_keepalive_proxy(start_proxy: StartProxy) -> Proxy:
    """A proxy without Redis, which opens streams before the provider answers."""
    return start_proxy(litellm_settings=KEEP_ALIVE, env=UNFORKED)


@pytest.fixture(scope="session")
def redis_keepalive_proxy(start_proxy: StartProxy, redis_server: RedisServer) -> Proxy:
    """A proxy with Redis, which opens streams before the provider answers."""
    return start_proxy(redis_port=redis_server.port, litellm_settings=KEEP_ALIVE, env=UNFORKED)


@pytest.fixture(params=[pytest.param("memory", marks=pytest.mark.versions), "redis"], scope="session")
def store(request: pytest.FixtureRequest) -> str:
    """The name of a store, each in turn."""
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def proxy(store: str, request: pytest.FixtureRequest) -> Proxy:
    """A proxy on each store."""
    proxy: Proxy = request.getfixturevalue(f"{store}_proxy")
    return proxy


@pytest.fixture(scope="session")
def keepalive_proxy(store: str, request: pytest.FixtureRequest) -> Proxy:
    """A proxy on each store, which opens streams before the provider answers."""
    proxy: Proxy = request.getfixturevalue(f"{store}_keepalive_proxy")
    return proxy
