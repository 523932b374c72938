"""However a request names a model, it meets the model's limit."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from tests.conftest import StartProxy
from tests.rig.config import Config, deployment
from tests.rig.identities import caller, key
from tests.rig.provider import Provider
from tests.rig.proxy import Proxy

pytestmark = pytest.mark.proxy

CHAT = "/v1/chat/completions"
POOL = {
    "name": "pool",
    "where": {"user": "pooled"},
    "models": ["gpt-4*", "own*", "openai/gated*", "openai/gpt-3.5-*", "mine/*", "fix*"],
    "by": ["key"],
    "max_parallel_requests": 1,
}
NUMBERS = dict.fromkeys(("gpt-4", "own", "openai/gated:w", "openai/gpt-3.5-turbo", "mine/x", "fixed-*"), 1)

LIMITED: Mapping[str, dict[str, Any]] = {
    "model_per_key": {"metadata": {"model_max_parallel_requests": NUMBERS}},
    "pool": {"user_id": "pooled"},
}
"""What a key's record says that it meets the limit of the name: a map of numbers, a pool with globs."""


@dataclass(frozen=True)
class Naming:
    """A way to name a model: in the body, unless the path has it."""

    model: str
    path: str = CHAT
    headers: Mapping[str, str] = field(default_factory=dict)

    async def ask(self, proxy: Proxy, one: str) -> httpx.Response:
        """Return the proxy's answer to the key `one`."""
        body = {"model": self.model, "messages": [{"role": "user", "content": "hi"}]}
        async with proxy.http(one) as client:
            return await client.post(self.path, json=body, headers=dict(self.headers))


@dataclass(frozen=True)
class Row:
    """Two namings of one model, and what the record of a key that may use both says of them.

    `upstream` is how many requests to the provider the first makes.
    """

    first: Naming
    second: Naming
    record: Mapping[str, object] = field(default_factory=dict)
    upstream: int = 1


GROUP = Naming("gpt-4")
RED = {"team_id": "red"}

ROWS = {
    "a router's alias": Row(Naming("smart"), GROUP),
    "a hidden alias": Row(GROUP, Naming("hidden")),
    "a deployment's id": Row(GROUP, Naming("gpt-4-one")),
    "another deployment's id": Row(Naming("gpt-4-two"), Naming("gpt-4-one")),
    "the model behind a deployment": Row(GROUP, Naming("hosted_vllm/gated")),
    "an alias of the model behind one": Row(Naming("behind"), GROUP),
    "an alias of the key": Row(Naming("for-me"), GROUP, {"aliases": {"for-me": "gpt-4"}}),
    "an alias of the team": Row(GROUP, Naming("ours"), {**RED, "team_model_aliases": {"ours": "gpt-4"}}),
    "the path, not the body": Row(Naming("other", "/openai/deployments/gpt-4/chat/completions"), GROUP),
    "the path of an engine": Row(GROUP, Naming("other", "/engines/gpt-4/chat/completions")),
    "an alias in the path": Row(GROUP, Naming("other", "/openai/deployments/smart/chat/completions")),
    "the query, not the body": Row(GROUP, Naming("other", f"{CHAT}?model=gpt-4")),
    "the body, not a header": Row(GROUP, Naming("gpt-4", headers={"x-litellm-model": "other"})),
    "one of several": Row(Naming("other,gpt-4"), GROUP, upstream=2),
    "an alias among several": Row(GROUP, Naming("other , smart")),
    "twice the same": Row(Naming("other"), Naming("gpt-4,smart")),
    "a team's name": Row(Naming("own"), Naming("own"), RED),
    "LiteLLM's name for a team's": Row(Naming("own"), Naming("model_name_red_1"), RED),
    "the id of a team's": Row(Naming("red-1"), Naming("own"), RED),
    "a name of a team's wildcard": Row(Naming("mine/x"), Naming("mine/x\n?"), RED),
    "a name of a wildcard": Row(Naming("openai/gated:w"), Naming("openai/gated:w")),
    "a name with more behind it": Row(Naming("openai/gated:w"), Naming("openai/gated:w\nand more")),
    "a name with a space behind it": Row(Naming("openai/gated:w"), Naming("openai/gated:w ")),
    "a name without its provider": Row(Naming("openai/gpt-3.5-turbo"), Naming("gpt-3.5-turbo")),
    "two names of a wildcard for one model": Row(Naming("fixed-1"), Naming("fixed-2")),
}


def models(provider: str) -> list[Config]:
    """Return the deployments that the namings lead to."""
    return [
        _known("gpt-4-one", deployment("gpt-4", "hosted_vllm/gated", provider)),
        _known("gpt-4-two", deployment("gpt-4", "openai/gated:two", provider)),
        _known("other-one", deployment("other", "openai/gated:other", provider)),
        _of_red("red-1", "own", deployment("model_name_red_1", "openai/gated:own", provider)),
        _of_red("red-2", "mine/*", deployment("model_name_red_2", "openai/gated:*", provider)),
        deployment("openai/gpt-3.5-*", "openai/gated:*", provider),
        deployment("fixed-*", "openai/gated:fixed", provider),
    ]


def _known(one: str, entry: Config) -> Config:
    return {**entry, "model_info": {"id": one}}


def _of_red(one: str, name: str, entry: Config) -> Config:
    return {**entry, "model_info": {"id": one, "team_id": "red", "team_public_model_name": name}}


@pytest.fixture(scope="module")
def naming_proxy(start_proxy: StartProxy, provider: Provider) -> Proxy:
    """A proxy whose models have many names."""
    aliases = {
        "smart": "gpt-4",
        "hidden": {"model": "gpt-4", "hidden": True},
        "behind": "hosted_vllm/gated",
    }
    return start_proxy(
        models=models(provider.url),
        litellm_settings={"parallel_limits": {"limits": [POOL]}},
        router_settings={"model_group_alias": aliases},
    )


@pytest.mark.parametrize("limit", LIMITED)
@pytest.mark.parametrize("row", ROWS)
async def test_a_models_names_share_its_limit(
    naming_proxy: Proxy, provider: Provider, row: str, limit: str
) -> None:
    """While one request is in flight by one name, there is no room by another; a neighbour has room."""
    named = ROWS[row]
    one = key(**LIMITED[limit], **named.record)
    first = asyncio.create_task(named.first.ask(naming_proxy, one))
    await provider.holds(named.upstream, caller=caller(one))
    refused = await named.second.ask(naming_proxy, one)
    neighbour = asyncio.create_task(Naming("other").ask(naming_proxy, one))
    await provider.holds(named.upstream + 1, caller=caller(one))
    provider.open_gate(caller(one))
    assert refused.status_code == httpx.codes.TOO_MANY_REQUESTS, refused.text
    assert refused.headers["x-parallel-limit-name"] == limit
    assert [answer.status_code for answer in await asyncio.gather(first, neighbour)] == [200, 200]
