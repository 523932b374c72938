"""What strangers send harms nobody: no 500, no other's count, no secret in the open."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.rig.burst import GATED, Ask, burst
from tests.rig.identities import caller, key, raw_key
from tests.rig.litellm_version import BUDGETS_CHECKED, MODELS_CHECKED, marks
from tests.rig.provider import Provider
from tests.rig.proxy import Proxy
from tests.rig.redis_server import RedisServer

pytestmark = pytest.mark.proxy

NO_NUMBERS: list[Any] = [-1, True, 1.5, "x", "", "-1", "1e3", [], {}, {"a": 1}, [1], "9" * 9999]
NO_TABLES: list[Any] = [5, "x", [], True, {"openai/ok": {}}, {"openai/ok": "x"}, {"*": -1}, {"": 1}, {"[": 1}]

RECORDS: dict[str, list[dict[str, Any]]] = {
    "key metadata": [{"metadata": {"max_parallel_requests": value}} for value in NO_NUMBERS],
    "key metadata by model": [
        {"metadata": {"model_max_parallel_requests": value}} for value in (*NO_NUMBERS, *NO_TABLES)
    ],
    "key model_max_budget": [
        *({"model_max_budget": {"openai/ok": {"max_parallel_requests": value}}} for value in NO_NUMBERS),
        *({"model_max_budget": {"openai/ok": value}} for value in NO_NUMBERS if value != ""),
    ],
    "team metadata": [
        {"team_id": "t", "team_metadata": {name: value}}
        for name in ("max_parallel_requests", "team_max_parallel_requests")
        for value in NO_NUMBERS
    ],
    "team metadata by model": [
        {"team_id": "t", "team_metadata": {name: value}}
        for name in ("model_max_parallel_requests", "team_model_max_parallel_requests")
        for value in (*NO_NUMBERS, *NO_TABLES)
    ],
    "auth": [
        {"user_id": "u", "team_id": "t", name: value}
        for name in ("user_max_parallel_requests", "team_max_parallel_requests")
        for value in NO_NUMBERS
    ],
}

IDENTITIES = [
    "a",
    "a,model=b",
    "a;user=b",
    "a%3Buser=b",
    "a\nb",
    "a\r\nx-forged: yes",
    "{litellm_parallel_limits}:lease:user;user=a",
    "{}",
    "<script>alert(1)</script>",
    "ünïcödé \N{PILE OF POO}",
    "\x00\x1b[31m",
    "*",
    "a" * 10_000,
    "a" * 9_999 + "b",
]


@pytest.mark.parametrize(
    "source",
    [
        pytest.param(source, marks=marks(BUDGETS_CHECKED if source == "key model_max_budget" else None))
        for source in RECORDS
    ],
)
async def test_a_malformed_number_is_no_limit_and_no_error(operator_proxy: Proxy, source: str) -> None:
    """Whatever a record holds where a number should be, the request is answered."""
    asks = [Ask(key(**record), "openai/ok") for record in RECORDS[source]]
    answers = await asyncio.gather(*(ask.send(operator_proxy) for ask in asks))
    wrong = [
        (ask, answer.text) for ask, answer in zip(asks, answers, strict=True) if answer.status_code != 200
    ]
    assert wrong == []


async def test_a_malformed_number_is_told_in_the_log_once(operator_proxy: Proxy) -> None:
    """The operator's log names the limit and the field, once for each worker."""
    for _ in range(9):
        await Ask(key(user_id="u", user_max_parallel_requests="many"), "openai/ok").send(operator_proxy)
    assert 1 <= operator_proxy.log().count("(user: auth user_max_parallel_requests)") <= 2


async def test_no_user_shares_another_users_count(operator_proxy: Proxy, provider: Provider) -> None:
    """However an identity is written, one of each is admitted, and the second of each refused."""
    nonce = uuid4().hex
    users = [f"{nonce}{identity}" for identity in IDENTITIES]
    asks = [Ask(key(user_id=user, user_max_parallel_requests=1)) for user in users for _ in range(2)]
    seen = await burst(operator_proxy, provider, asks)
    pairs = zip(seen.answers[::2], seen.answers[1::2], strict=True)
    assert [sorted(answer.status_code for answer in pair) for pair in pairs] == [[200, 429]] * len(users)
    assert not [answer for answer in seen.answers if "x-forged" in answer.headers]
    assert max(len(refusal.text) for refusal in seen.refusals) < 1000


async def test_no_model_shares_another_models_count(operator_proxy: Proxy, provider: Provider) -> None:
    """However a model is written, each has a count of its own."""
    one = key(metadata={"model_max_parallel_requests": {"*": 1}})
    models = [f"{GATED}:{identity.replace(',', '')}" for identity in IDENTITIES if _fits_a_header(identity)]
    seen = await burst(operator_proxy, provider, [Ask(one, model) for model in models for _ in range(2)])
    pairs = zip(seen.answers[::2], seen.answers[1::2], strict=True)
    assert [sorted(answer.status_code for answer in pair) for pair in pairs] == [[200, 429]] * len(models)


async def test_a_name_that_breaks_litellms_answer_keeps_no_slot(operator_proxy: Proxy) -> None:
    """LiteLLM puts a model's name into a header as it is, which breaks off some answers: the slot is back."""
    one = key(metadata={"model_max_parallel_requests": {"*": 1}})
    models = [f"openai/ok:{identity}" for identity in IDENTITIES if not _fits_a_header(identity)]
    broken = [Ask(one, model).send(operator_proxy) for model in models for _ in range(2)]
    await asyncio.gather(*broken, return_exceptions=True)
    await operator_proxy.settled()


async def test_the_models_name_in_the_body_is_no_way_round_the_one_in_the_path(
    operator_proxy: Proxy, provider: Provider
) -> None:
    """A request is limited by the model that is called, not by another that its body names."""
    one = key(metadata={"model_max_parallel_requests": {"gpt-4": 0, "roomy": 100}})
    body = {"model": "roomy", "messages": [{"role": "user", "content": "hi"}]}
    async with operator_proxy.http(one) as client:
        answer = await client.post("/openai/deployments/gpt-4/chat/completions", json=body)
    assert answer.status_code == 429


@pytest.mark.parametrize("model", [None, 5, [], {}, "", " ", ",", ",,gpt-4", True])
async def test_a_malformed_model_is_no_error_of_ours(operator_proxy: Proxy, model: object) -> None:
    """What is no model's name is LiteLLM's to refuse."""
    one = key(metadata={"max_parallel_requests": 1, "model_max_parallel_requests": {"*": 1}})
    async with operator_proxy.http(one) as client:
        answer = await client.post("/v1/embeddings", json={"model": model, "input": "hi"})
    assert answer.status_code == (400 if MODELS_CHECKED or isinstance(model, str | None) else 500)
    async with operator_proxy.http(one) as client:  # anew: after an error of its own a server hangs up
        after = await client.post("/v1/embeddings", json={"model": "openai/ok", "input": "hi"})
    assert after.status_code == 200, after.text


async def test_a_raw_key_stays_secret(
    operator_proxy: Proxy, provider: Provider, redis_server: RedisServer
) -> None:
    """A key that custom auth hands over unhashed is in no answer, no status, no Redis key and no log."""
    one = raw_key(key_alias=None, metadata={"max_parallel_requests": 1})
    holding = asyncio.create_task(Ask(one).send(operator_proxy))
    await provider.holds(1, caller=caller(one))
    refused = await Ask(one).send(operator_proxy)
    status = str(operator_proxy.status())
    redis = redis_server.client
    ours = list(redis.scan_iter("{litellm_parallel_limits}:*"))
    kept = str([ours, *(redis.zrange(name, 0, -1) for name in ours if redis.type(name) == "zset")])
    provider.open_gate(caller(one))
    held = await holding
    assert (held.status_code, refused.status_code) == (200, 429)
    secret = one[-40:]
    for text in (_told(held), _told(refused), status, kept, operator_proxy.log()):
        assert secret not in text


def _fits_a_header(text: str) -> bool:
    return text.isprintable() and text.isascii()


def _told(answer: httpx.Response) -> str:
    return f"{answer.headers} {answer.text}"
