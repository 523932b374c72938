"""A client that sends one request after another never meets its own slot."""

from __future__ import annotations

from typing import Any

import pytest

from tests.rig.identities import caller, key
from tests.rig.ledger import Count
from tests.rig.provider import Provider
from tests.rig.proxy import Proxy

pytestmark = pytest.mark.proxy

REQUESTS = 40
ALL_ALONE = Count(in_flight=0, peak=1, total=REQUESTS)


def single() -> str:
    """Return a key that admits one request at a time, of each model and of all."""
    return key(metadata={"max_parallel_requests": 1, "model_max_parallel_requests": {"*": 1}})


@pytest.fixture(params=[False, True], ids=["whole", "stream"])
def stream(request: pytest.FixtureRequest) -> bool:
    """Whether the answers are streamed."""
    return request.param is True


async def test_chats_in_a_row_with_a_limit_of_one(proxy: Proxy, provider: Provider, stream: bool) -> None:  # noqa: FBT001
    """OpenAI's client is answered, time after time."""
    one = single()
    async with proxy.async_openai(one) as client:
        for _ in range(REQUESTS):
            answer: Any = await client.chat.completions.create(
                model="openai/ok", messages=[{"role": "user", "content": "And now?"}], stream=stream
            )
            if stream:
                assert [chunk async for chunk in answer][-1].choices[0].finish_reason == "stop"
    assert provider.count(caller=caller(one)) == ALL_ALONE


async def test_messages_in_a_row_with_a_limit_of_one(proxy: Proxy, provider: Provider, stream: bool) -> None:  # noqa: FBT001
    """Anthropic's client is answered, time after time."""
    one = single()
    async with proxy.async_anthropic(one) as client:
        for _ in range(REQUESTS):
            answer: Any = await client.messages.create(
                model="anthropic/ok",
                max_tokens=9,
                messages=[{"role": "user", "content": "And now?"}],
                stream=stream,
            )
            if stream:
                assert [event async for event in answer][-1].type == "message_stop"
    assert provider.count(caller=caller(one)) == ALL_ALONE


async def test_connections_in_a_row_with_a_limit_of_one(operator_proxy: Proxy, provider: Provider) -> None:
    """A client with a new connection for each request comes to either worker: neither refuses it."""
    one = single()
    for _ in range(REQUESTS):
        async with operator_proxy.async_openai(one) as client:
            await client.embeddings.create(model="openai/ok", input="And now?")
    assert provider.count(caller=caller(one)) == ALL_ALONE
