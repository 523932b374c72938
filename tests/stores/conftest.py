"""Every store, each in turn, and what its leases are kept in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial

import pytest

from litellm_parallel_limits.stores import Store
from tests.rig.redis_server import RedisServer
from tests.stores.stages import OpenStage, on_file, on_memory, on_redis
from tests.stores.storages import (
    Connect,
    InRedis,
    OpenShared,
    OpenStorage,
    SharedStorage,
    Storage,
    fake_client,
    in_file,
    in_memory,
    in_redis,
    real_client,
)
from tests.stores.wire import Wire


@pytest.fixture
def connect_fakeredis() -> Connect:
    """Return a function that connects to a Redis in this process."""
    return fake_client


@pytest.fixture
def connect_redis(redis_server: RedisServer) -> Connect:
    """Return a function that connects to a real Redis."""
    return partial(real_client, redis_server.port)


@pytest.fixture(params=["fakeredis", "redis"])
def connect(request: pytest.FixtureRequest) -> Connect:
    """Return a function that connects to each Redis."""
    found: Connect = request.getfixturevalue(f"connect_{request.param}")
    return found


@pytest.fixture
async def redis_storage(connect: Connect) -> AsyncIterator[InRedis]:
    """Yield a storage in each Redis."""
    async with in_redis(connect) as storage:
        yield storage


@pytest.fixture(params=["memory", "host", "fakeredis", "redis"])
def open_storage(request: pytest.FixtureRequest) -> OpenStorage:
    """Return a function that opens each storage, in whatever event loop it is called."""
    return in_memory if request.param == "memory" else _open_shared(request)


@pytest.fixture(params=["host", "fakeredis", "redis"])
def open_shared(request: pytest.FixtureRequest) -> OpenShared:
    """Return a function that opens each storage of several workers."""
    return _open_shared(request)


def _open_shared(request: pytest.FixtureRequest) -> OpenShared:
    if request.param == "host":
        return in_file
    return partial(in_redis, request.getfixturevalue(f"connect_{request.param}"))


@pytest.fixture
def open_stage(request: pytest.FixtureRequest, kind: str) -> OpenStage:
    """Return a function that opens a stage of this kind, in whatever event loop it is called."""
    if kind in {"memory", "host"}:
        return {"memory": on_memory, "host": on_file}[kind]
    return partial(on_redis, request.getfixturevalue(f"connect_{kind}"))


@pytest.fixture
async def storage(open_storage: OpenStorage) -> AsyncIterator[Storage]:
    """Yield each storage."""
    async with open_storage() as storage:
        yield storage


@pytest.fixture
async def shared_storage(open_shared: OpenShared) -> AsyncIterator[SharedStorage]:
    """Yield each storage of several workers."""
    async with open_shared() as storage:
        yield storage


@pytest.fixture
def store(storage: Storage) -> Store:
    """Return a worker's store, of each kind."""
    return storage.store()


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    """Yield the way to a Redis."""
    async with in_redis(fake_client) as far_end:
        yield Wire(far_end.client)
