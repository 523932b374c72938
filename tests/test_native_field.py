"""A key's own `max_parallel_requests`, enforced by us where the operator says so, else by LiteLLM."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from inspect import signature
from typing import Any

import pytest
from fastapi import HTTPException

from litellm_parallel_limits.calls import caller
from litellm_parallel_limits.native_field import FIELD, take_over, taken
from litellm_parallel_limits.policy import Policy
from litellm_parallel_limits.settings import read
from tests.litellm_objects import auth, imported, warnings_of_its_own

pytestmark = pytest.mark.versions

SECRET = "sk-native-0123456789"
CHAT = b'{"model": "m", "messages": []}'


def limit(key: Any) -> int | None:
    """Return the number of the limit `api_key` that a request of `key` meets."""
    numbers = {one.scope.limit: one.capacity for one in Policy().limits(caller(key))}
    return numbers.get("api_key")


def test_the_field_is_litellms_unless_it_is_taken_over() -> None:
    """Without a take-over the field holds, and sets no limit of ours."""
    key = auth(api_key=SECRET, max_parallel_requests=3)
    assert limit(key) is None
    assert key.max_parallel_requests == 3


@pytest.mark.parametrize("number", [0, 1, 500])
def test_a_number_that_is_taken_over_is_the_keys_limit(number: int) -> None:
    """The number is ours to enforce, and LiteLLM sees none."""
    key = auth(api_key=SECRET, max_parallel_requests=number)
    take_over(key, None)
    assert (limit(key), key.max_parallel_requests) == (number, None)


def test_the_keys_metadata_comes_first() -> None:
    """A number in the metadata holds instead of the field's."""
    key = auth(api_key=SECRET, max_parallel_requests=3, metadata={"max_parallel_requests": 7})
    take_over(key, None)
    assert limit(key) == 7


@pytest.mark.parametrize("value", [None, -1])
def test_what_is_no_number_stays_as_it_is(value: int | None) -> None:
    """LiteLLM is left to make of it what it would without us."""
    key = auth(api_key=SECRET, max_parallel_requests=value)
    take_over(key, None)
    assert (taken(key), key.max_parallel_requests) == (None, value)


def test_a_second_run_through_the_hooks_meets_the_same_limit() -> None:
    """A fallback of the same request, or another request that custom auth gives the same object."""
    key = auth(api_key=SECRET, max_parallel_requests=3)
    take_over(key, None)
    take_over(key, None)
    assert limit(key) == limit(key.model_copy()) == 3


def test_a_new_number_in_an_object_that_is_used_again_holds() -> None:
    """Custom auth that keeps its objects may change their numbers."""
    key = auth(api_key=SECRET, max_parallel_requests=3)
    take_over(key, None)
    key.max_parallel_requests = 2
    take_over(key, None)
    assert (limit(key), key.max_parallel_requests) == (2, None)


def test_nothing_of_ours_is_written_with_the_object() -> None:
    """What LiteLLM writes of its auth object, to caches and logs, is what it would be without the number."""
    key, other = (auth(api_key=SECRET, max_parallel_requests=number) for number in (3, None))
    take_over(key, None)
    assert key.model_dump() == other.model_dump()
    assert key.model_dump_json() == other.model_dump_json()
    assert (dict(key), repr(key)) == (dict(other), repr(other))


def test_an_object_that_litellm_keeps_is_left_alone() -> None:
    """Whoever is given the very object of LiteLLM's cache keeps its number, and LiteLLM's enforcement."""
    key = auth(api_key=SECRET, max_parallel_requests=3)
    cache = imported("litellm.caching.dual_cache").DualCache()
    cache.in_memory_cache.set_cache(key.token, key)
    take_over(key, cache)
    assert (taken(key), key.max_parallel_requests) == (None, 3)


@pytest.mark.parametrize(
    ("section", "takes_over"),
    [
        ({}, False),
        ({"take_over_key_limit": True}, True),
        ({"take_over_key_limit": True, "mode": "observe"}, False),
    ],
)
def test_the_operator_says_who_enforces_the_field(
    section: Mapping[str, object],
    takes_over: bool,  # noqa: FBT001 (pytest's)
) -> None:
    """LiteLLM does by default, and while we only observe: nobody would otherwise."""
    assert read(section, {}).policy().takes_over_key_limit is takes_over


class LitellmLimiter:
    """LiteLLM's own limiter, which counts in memory."""

    def __init__(self) -> None:
        self.cache = imported("litellm.caching.dual_cache").DualCache()
        usage = imported("litellm.proxy.utils").InternalUsageCache(self.cache)
        self._limiter = imported("litellm.proxy.hooks").get_proxy_hook("parallel_request_limiter")(usage)

    async def admit(self, key: Any) -> None:
        """Let a request of `key` in. Raises HTTPException if it is not to come in."""
        with warnings_of_its_own():
            await self._limiter.async_pre_call_hook(key, self.cache, {"model": "m"}, "acompletion")

    @property
    def counters(self) -> list[str]:
        """What it counts in requests in flight."""
        return [name for name in self.cache.in_memory_cache.cache_dict if FIELD in name]


async def test_litellm_counts_the_field_of_a_key() -> None:
    """What is taken over: LiteLLM refuses the second request of a key with 1."""
    limiter, key = LitellmLimiter(), auth(api_key=SECRET, max_parallel_requests=1)
    await limiter.admit(key)
    assert limiter.counters
    with pytest.raises(HTTPException):
        await limiter.admit(key)


async def test_litellm_counts_nothing_of_what_is_taken_over() -> None:
    """Its limiter admits any number of requests, and keeps no count of them that could leak."""
    limiter, key = LitellmLimiter(), auth(api_key=SECRET, max_parallel_requests=1)
    take_over(key, limiter.cache)
    for _ in range(3):
        await limiter.admit(key)
    assert limiter.counters == []


async def test_litellms_other_limits_of_the_key_still_hold() -> None:
    """A key with two requests a minute is refused its third by LiteLLM."""
    limiter, key = LitellmLimiter(), auth(api_key=SECRET, max_parallel_requests=9, rpm_limit=2)
    take_over(key, limiter.cache)
    await limiter.admit(key)
    await limiter.admit(key)
    with pytest.raises(HTTPException):
        await limiter.admit(key)


class Database:
    """A stand-in for LiteLLM's database, which has nothing."""

    async def get_data(self, **_: object) -> None:
        """Find nothing."""

    def __getattr__(self, name: str) -> Any:
        return Table()


class Table:
    """A table without rows, and everything within it."""

    def __getattr__(self, name: str) -> Table:
        return Table()

    async def __call__(self, *_: object, **__: object) -> None:
        """Find nothing."""


class Proxy:
    """A proxy with the key SECRET, which has 2 for its number, and `fields`; `server` is LiteLLM's module."""

    def __init__(self, server: Any, fields: Mapping[str, object]) -> None:
        self._server = server
        self._checks = imported("litellm.proxy.auth.auth_checks")
        self._auth = imported("litellm.proxy.auth.user_api_key_auth").user_api_key_auth
        self._record = auth(api_key=SECRET, max_parallel_requests=2, **fields)
        self.cache = server.user_api_key_cache

    async def know_the_key(self) -> None:
        """Put the key where LiteLLM's auth will find it."""
        await self.cache.async_set_cache(self._record.token, self._record, model_type=type(self._record))

    async def authenticate(self) -> Any:
        """Return what LiteLLM's auth makes of a chat request of the key."""
        bearer = f"Bearer {SECRET}"
        given = dict.fromkeys(signature(self._auth).parameters) | {"api_key": bearer}
        given["request"] = self._request(bearer)
        with warnings_of_its_own():
            return await self._auth(**given)

    async def cached(self) -> Any:
        """Return what LiteLLM's look-up of keys gives its next request."""
        return await self._checks.get_key_object(
            self._record.token, self._server.prisma_client, self.cache, check_cache_only=True
        )

    def _request(self, bearer: str) -> Any:
        headers = {"authorization": bearer, "content-type": "application/json"}
        scope = {
            "type": "http",
            "method": "POST",
            "scheme": "http",
            "server": ("proxy", 80),
            "path": "/v1/chat/completions",
            "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            "app": self._server.app,
        }

        async def receive() -> Mapping[str, object]:
            return {"type": "http.request", "body": CHAT}

        return imported("starlette.requests").Request(scope, receive)


@pytest.fixture(params=[{}, {"user_role": "proxy_admin"}], ids=["key", "key of an admin"])
def proxy(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy that believes to have a database."""
    server = imported("litellm.proxy.proxy_server")
    monkeypatch.setattr(server, "prisma_client", Database())
    monkeypatch.setattr(server, "master_key", "sk-master")
    yield Proxy(server, request.param)
    server.user_api_key_cache.flush_cache()


async def test_every_request_of_a_virtual_key_brings_its_number(proxy: Proxy) -> None:
    """LiteLLM's own auth, over its own cache, gives every request the number, whatever the last one lost."""
    await proxy.know_the_key()
    for _ in range(3):
        key = await proxy.authenticate()
        assert key.max_parallel_requests == 2
        take_over(key, proxy.cache)
        await asyncio.sleep(0)  # LiteLLM writes its cache beside the request
        assert (await proxy.cached()).max_parallel_requests == 2
