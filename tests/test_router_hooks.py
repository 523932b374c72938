"""What LiteLLM's router asks of us before, between and after its attempts, and what is held meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import litellm
import pytest
from fastapi import HTTPException

from litellm_parallel_limits import UserAPIKeyAuth
from litellm_parallel_limits.built_in import wanted_records
from litellm_parallel_limits.holder import current_holder
from litellm_parallel_limits.incoming import Message, Receive, Send
from litellm_parallel_limits.middleware import HolderMiddleware
from litellm_parallel_limits.plugin import ParallelLimits
from litellm_parallel_limits.policy import OperatorLimit
from litellm_parallel_limits.records import Found
from litellm_parallel_limits.sources import Call
from tests.slots import Entry, Slots, asking, deployment, of_deployment

URL = "http://proxy/v1/chat/completions"
KEY = UserAPIKeyAuth(api_key="sk-router", user_id="u1", metadata={"max_parallel_requests": 5})
EACH = OperatorLimit("each", 1, by=("model",))

A1, A2 = deployment("a1", model="a"), deployment("a2", model="a")
B1, B2 = deployment("b1", None, model="b"), deployment("b2", None, model="b")
C1, C2 = deployment("c1", None, model="c"), deployment("c2", None, model="c")
ALONE = deployment("alone", model="solo")
LEFT_OUT: Entry = {
    "model_name": "quiet",
    "litellm_params": {"model": "openai/quiet"},
    "model_info": {"id": "q", "parallel_limits": {"enabled": False}},
}
MODELS = (A1, A2, B1, B2, C1, C2, ALONE, LEFT_OUT)


def router() -> Any:
    """Return what we read of LiteLLM's router."""
    names = [entry["model_name"] for entry in MODELS]
    indices = {name: [place for place, one in enumerate(names) if one == name] for name in names}
    return SimpleNamespace(
        model_names=set(names),
        model_list=list(MODELS),
        model_id_to_deployment_index_map={},
        model_group_alias={},
        model_name_to_deployment_indices=indices,
        team_model_to_deployment_indices={},
        pattern_router=SimpleNamespace(patterns={}),
        team_pattern_routers={},
        default_deployment=None,
        deployment_names=[],
        fallbacks=[],
    )


class Proxy:
    """What LiteLLM does around the plugin; its look-ups find `found`, and note what they were `asked`."""

    def __init__(self, *limits: OperatorLimit, found: Found | None = None) -> None:
        self.slots = Slots(*limits)
        self.found = found or {}
        self.asked: list[Sequence[Call]] = []
        self.plugin = ParallelLimits(
            self.slots.admission, self.slots.routing, router=router, look_up=self._look_up
        )

    async def _look_up(self, _: object, calls: Sequence[Call]) -> Found:
        self.asked.append(calls)
        wanted = {record for call in calls for record in wanted_records(call)}
        return {record: fields for record, fields in self.found.items() if record in wanted}

    async def pre_call(self, model: str, *, id_: str | None = "id", url: str | None = URL) -> None:
        """Run the hooks before a call."""
        described = {"proxy_server_request": {"url": url, "body": {}}} if url else {}
        data = {"model": model, "litellm_call_id": id_, **described}
        await self.plugin.async_pre_call_hook(KEY, None, data, "acompletion")

    async def filters(self, model: str, *, id_: str | None = "id", **request: object) -> list[str]:
        """Begin an attempt at `model`; return the deployments that have room."""
        offered = [entry for entry in MODELS if entry["model_name"] == model]
        request = {"litellm_call_id": id_, **request}
        found = await self.plugin.async_filter_deployments(model, offered, None, request)
        return [entry["model_info"]["id"] for entry in found]

    async def chose(self, entry: Entry) -> None:
        """Tell what the router has chosen."""
        await self.plugin.async_pre_call_deployment_hook({**entry}, None)

    async def failed(self, entry: Entry) -> None:
        """Tell that an attempt has failed."""
        await self.plugin.async_post_call_failure_deployment_hook({**entry}, OSError(), None)

    async def in_use(self) -> dict[str, int]:
        """Return how many slots are in use, by the last identity of each scope."""
        used = await self.slots.in_use()
        return {key.rpartition("=")[2] if "key=" not in key else "key": count for key, count in used.items()}

    async def request(self, work: Callable[[], Awaitable[None]], *, status: int = 200) -> Mapping[str, str]:
        """Serve one HTTP request that does `work`; return the headers of its answer."""
        sent: list[Message] = []

        async def app(_: Message, __: Receive, send: Send) -> None:
            await work()
            await send({"type": "http.response.start", "status": status, "headers": []})
            await send({"type": "http.response.body"})

        async def send(message: Message) -> None:
            sent.append(message)

        async def receive() -> Message:
            return {"type": "http.request"}

        await HolderMiddleware(app)({"type": "http", "path": "/v1/chat/completions"}, receive, send)
        assert await self.slots.in_use() == self.others
        return {name.decode(): value.decode() for name, value in sent[0]["headers"]}

    others: Mapping[str, int] = {}
    """What requests other than the one served hold."""


async def test_attempt_holds_the_deployment_it_goes_to() -> None:
    """Of the deployments to choose from a slot is held in each, then in the chosen one, then in none."""
    proxy = Proxy()

    async def work() -> None:
        await proxy.pre_call("a")
        assert await proxy.filters("a") == ["a1", "a2"]
        assert await proxy.in_use() == {"key": 1, "a1": 1, "a2": 1}
        await proxy.chose(A2)
        assert await proxy.in_use() == {"key": 1, "a2": 1}
        await proxy.failed(A2)
        assert await proxy.in_use() == {"key": 1}
        assert await proxy.filters("a") == ["a1", "a2"]
        await proxy.chose(A1)

    await proxy.request(work)


async def test_full_deployments_refuse_as_a_rate_limit() -> None:
    """Where every deployment is full LiteLLM is told of a limit not worth a retry, the client of ours."""
    proxy = Proxy()
    others = [await proxy.slots.take(of_deployment(one)) for one in ("a1", "a2")]
    proxy.others = await proxy.slots.in_use()

    async def work() -> None:
        await proxy.pre_call("a")
        with pytest.raises(litellm.RateLimitError) as refused:
            await proxy.filters("a")
        assert refused.value.num_retries == 0
        assert await proxy.in_use() == {"key": 1, "a1": 1, "a2": 1}

    headers = await proxy.request(work, status=429)
    assert headers["x-parallel-limit-name"] == "deployment"
    for permit in others:
        permit.release()


async def test_look_at_the_list_is_no_call() -> None:
    """Where the router only looks at its deployments, all of them are there, and nothing is held."""
    proxy = Proxy()
    nothing: dict[str, Any] | None
    for nothing in (None, {}):
        assert await proxy.plugin.async_filter_deployments("a", [A1, A2], None, nothing) == [A1, A2]
    assert await proxy.in_use() == {}
    assert current_holder.get() is None


async def test_lone_deployment_is_held_once() -> None:
    """A model's only deployment is taken with the model, and stays taken through its attempts."""
    proxy = Proxy()

    async def work() -> None:
        await proxy.pre_call("solo")
        for _ in range(2):
            assert await proxy.in_use() == {"key": 1, "alone": 1}
            assert await proxy.filters("solo") == ["alone"]
            await proxy.chose(ALONE)
            await proxy.failed(ALONE)

    await proxy.request(work)


async def test_nested_call_may_use_the_deployment_of_its_request() -> None:
    """A call that LiteLLM nests in a request cannot wait for the request's own slot: it shares it."""
    proxy = Proxy()

    async def work() -> None:
        await proxy.pre_call("solo")
        await proxy.filters("solo")
        await proxy.pre_call("solo", id_="nested", url=None)
        assert await proxy.filters("solo", id_="nested") == ["alone"]
        assert await proxy.in_use() == {"key": 1, "alone": 1}

    await proxy.request(work)


async def test_chain_of_fallbacks_holds_only_the_last() -> None:
    """Each model that the router falls back to takes the place of the one before it, however many."""
    proxy = Proxy(EACH)

    async def work() -> None:
        await proxy.pre_call("a")
        for model, entry in (("a", A1), ("b", B1), ("c", C1)):
            await proxy.filters(model)
            await proxy.chose(entry)
            await proxy.failed(entry)
            assert await proxy.in_use() == {"key": 1, model: 1}

    await proxy.request(work)


async def test_full_fallback_leaves_the_next_a_chance() -> None:
    """Where a fallback is full the router goes on to the next, which holds what it meets."""
    proxy = Proxy(EACH)
    (limit,) = proxy.slots.policy.limits(asking("b").calls[0])
    other = await proxy.slots.take(limit)
    proxy.others = await proxy.slots.in_use()

    async def work() -> None:
        await proxy.pre_call("a")
        await proxy.filters("a")
        with pytest.raises(litellm.RateLimitError):
            await proxy.filters("b")
        assert await proxy.filters("c") == ["c1", "c2"]
        assert await proxy.in_use() == {"key": 1, "b": 1, "c": 1}

    await proxy.request(work)
    other.release()


async def test_retries_of_one_model_hold_what_they_held() -> None:
    """An attempt at the model that was asked for takes nothing but its deployment."""
    proxy = Proxy(EACH)

    async def work() -> None:
        await proxy.pre_call("b")
        for _ in range(3):
            await proxy.filters("b")
            assert await proxy.in_use() == {"key": 1, "b": 1}

    await proxy.request(work)


async def test_route_that_only_the_router_sees_is_admitted_there() -> None:
    """Where LiteLLM calls no hook before its router, a request takes its slots at the router, once."""
    proxy = Proxy(EACH)

    async def work() -> None:
        for _ in range(2):
            await proxy.filters("b", id_=None, metadata={"user_api_key_auth": KEY})
            assert await proxy.in_use() == {"key": 1, "b": 1}

    await proxy.request(work)


@pytest.mark.parametrize("forged", [{"api_key": "sk-x"}, "text", [1], 5])
async def test_auth_that_a_client_made_up_is_not_believed(forged: object) -> None:
    """What a body says in the place of LiteLLM's auth object frees nobody of a limit."""
    proxy = Proxy()
    forgery = {"user_api_key_auth": forged}

    async def work() -> None:
        await proxy.filters("b", litellm_metadata=forgery, metadata={"user_api_key_auth": KEY})
        assert await proxy.in_use() == {"key": 1}

    await proxy.request(work)


@pytest.mark.parametrize("metadata", [None, [], "text", {}, {"user_api_key_auth": None}])
async def test_call_of_nobody_meets_what_counts_everybody(metadata: object) -> None:
    """A call of which the router knows no sender holds a slot in its deployment, and no more."""
    proxy = Proxy(EACH)

    async def work() -> None:
        assert await proxy.filters("a", metadata=metadata) == ["a1", "a2"]
        await proxy.chose(A1)
        assert (await proxy.in_use())["a1"] == 1

    await proxy.request(work)


async def test_call_of_litellms_own_accord_holds_nothing() -> None:
    """What the router is asked outside of any request is not counted: nothing would tell its end."""
    proxy = Proxy()
    assert await proxy.filters("a") == ["a1", "a2"]
    assert await proxy.in_use() == {}


async def test_deployment_hooks_without_a_request_do_nothing() -> None:
    """Where nothing was held, nothing is given back."""
    proxy = Proxy()
    await proxy.chose(A1)
    await proxy.failed(A1)
    assert current_holder.get() is None


async def test_records_are_looked_up_for_every_model_of_a_list() -> None:
    """A list whose first model is left out is looked up for the others: nothing frees these of limits."""
    table = {"model_max_parallel_requests": {"b": 1}}
    numbered = {"user": {"max_parallel_requests": 5}}
    proxy = Proxy(found={"user metadata": table, **numbered})  # type: ignore[dict-item]

    async def work() -> None:
        await proxy.pre_call("quiet,b")
        assert await proxy.in_use() == {"key": 1, "u1": 1, "b": 1}

    await proxy.request(work)
    assert len(proxy.asked) == 1


async def test_records_are_looked_up_for_a_fallback_of_a_model_left_out() -> None:
    """Where the model asked for is left out, the one that the router falls back to meets its number."""
    proxy = Proxy(found={"user metadata": {"model_max_parallel_requests": {"b": 1}}})

    async def work() -> None:
        await proxy.pre_call("quiet")
        await proxy.filters("quiet")
        await proxy.filters("b")
        assert await proxy.in_use() == {"key": 1, "b": 1}

    await proxy.request(work)


async def test_limit_by_deployment_is_about_the_model_that_is_tried() -> None:
    """A limit by deployment that is about one model is met by it, also as the second of a list."""
    proxy = Proxy(OperatorLimit("each", 1, by=("deployment",), models=("b",)))

    async def work() -> None:
        await proxy.pre_call("c,b")
        assert await proxy.filters("c") == ["c1", "c2"]
        assert await proxy.in_use() == {"key": 1}
        assert await proxy.filters("b") == ["b1", "b2"]
        assert await proxy.in_use() == {"key": 1, "b1": 1, "b2": 1}

    await proxy.request(work)


async def test_models_of_a_list_are_tried_at_the_same_time() -> None:
    """Each model of a list that LiteLLM tries in a task of its own holds its own deployment."""
    proxy = Proxy(EACH)

    async def tried(model: str, entry: Entry) -> None:
        await proxy.filters(model)
        await proxy.chose(entry)

    async def work() -> None:
        await proxy.pre_call("a,c")
        await asyncio.gather(tried("a", A1), tried("c", C1))
        assert await proxy.in_use() == {"key": 1, "a": 1, "c": 1, "a1": 1}

    await proxy.request(work)


async def test_too_many_limits_at_the_router_are_a_mistake_of_the_client() -> None:
    """A request that stands in more limits than anybody's would is a bad one, also for the router."""
    proxy = Proxy(*(OperatorLimit(f"each-{number}", 1, by=("tag", "model")) for number in range(5)))

    async def work() -> None:
        holder = current_holder.get()
        assert holder is not None
        tags = [f"t{number}" for number in range(120)]
        data = {"model": "", "litellm_call_id": "id", "tags": tags}
        await proxy.plugin.async_pre_call_hook(KEY, None, data, "acompletion")
        with pytest.raises(litellm.BadRequestError):
            await proxy.filters("b")

    await proxy.request(work)


async def test_refusal_of_a_list_holds_nothing() -> None:
    """Where one model of a list is full, none of its slots is held."""
    proxy = Proxy(EACH)

    async def work() -> None:
        with pytest.raises(HTTPException):
            await proxy.pre_call("b,c,b")
        assert await proxy.in_use() == {}

    await proxy.request(work, status=429)
