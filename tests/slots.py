"""Slots to be taken by requests, in a store of this process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from litellm_parallel_limits.admission import Admission
from litellm_parallel_limits.gate import Gate
from litellm_parallel_limits.hold_times import HoldTimes
from litellm_parallel_limits.holder import Asked, Holder
from litellm_parallel_limits.limiter import Limiter, Permit
from litellm_parallel_limits.limits import Limit, Scope
from litellm_parallel_limits.policy import OperatorLimit, Policy
from litellm_parallel_limits.routing import Routing
from litellm_parallel_limits.sources import Call, Identity
from litellm_parallel_limits.stores.memory import MemoryStore

Entry = Mapping[str, Any]


class Slots:
    """Everything between a request and a store, with these limits of the operator's."""

    def __init__(self, *limits: OperatorLimit, store: MemoryStore | None = None) -> None:
        self.policy = Policy(limits)
        self.limiter = Limiter(store or MemoryStore(ttl=30), ttl=30)
        gate = Gate(lambda: self.limiter, HoldTimes())
        self.admission = Admission(lambda: self.policy, gate)
        self.routing = Routing(lambda: self.policy, gate)

    async def in_use(self) -> dict[str, int]:
        """Return how many slots are in use in each scope, by its key."""
        return dict(Counter(holding.scope.key for holding in (await self.limiter.snapshot()).holdings))

    async def take(self, *limits: Limit) -> Permit:
        """Take a slot in each of `limits`, as another request does."""
        permit = await self.limiter.admit(limits)
        assert isinstance(permit, Permit)
        return permit


def deployment(id_: str, capacity: object = 1, *, model: str = "gpt-4") -> Entry:
    """Return a deployment as LiteLLM's router keeps it; one of capacity None is unlimited."""
    said = {} if capacity is None else {"parallel_limits": {"max_parallel_requests": capacity}}
    return {
        "model_name": model,
        "litellm_params": {"model": f"openai/{model}"},
        "model_info": {"id": id_, **said},
    }


def of_deployment(id_: str, capacity: int = 1) -> Limit:
    """Return the limit of a deployment."""
    return Limit(Scope("deployment", (("deployment", id_),)), capacity)


def asking(*models: str, run: object = "run") -> Asked:
    """Return what a run asks for that names these models."""
    return Asked(run, "id", tuple(Call(models=(Identity(model),)) for model in models) or (Call(),))


def request() -> Holder:
    """Return what a request of the run `run` holds: nothing yet."""
    holder = Holder("/v1/chat/completions")
    holder.run = "run"
    return holder
