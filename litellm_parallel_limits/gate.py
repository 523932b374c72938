"""The answer to who asks for slots."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from litellm_parallel_limits import answers
from litellm_parallel_limits.answers import Refusal
from litellm_parallel_limits.errors import StoreUnavailableError
from litellm_parallel_limits.hold_times import HoldTimes
from litellm_parallel_limits.limiter import Limiter, Permit
from litellm_parallel_limits.limits import Limit
from litellm_parallel_limits.waiting import Wish


class Gate:
    """Lets requests in, or tells them why not.

    `limiter` is asked for when the first request comes: LiteLLM has its Redis only after it has loaded its
    callbacks.
    """

    def __init__(self, limiter: Callable[[], Limiter], hold_times: HoldTimes) -> None:
        self._limiter = limiter
        self._hold_times = hold_times

    @property
    def is_beside_others(self) -> bool:
        """Whether there are other workers that admit to the same limits."""
        return self._limiter().store.workers > 1

    async def admit(
        self, limits: Sequence[Limit], *, model: str, key_name: str, wish: Wish | None = None
    ) -> Permit | Refusal:
        """Take a slot in each of `limits`, or none; with a `wish` wait for them where they let it.

        `model` stands in the status, `key_name` is what a refusal may call the caller's key. Raises GoneError
        if who waited has left.
        """
        try:
            answer = await self._limiter().admit(limits, model=model, wish=wish)
        except StoreUnavailableError as error:
            return answers.unavailable(error.limit, str(error))
        if isinstance(answer, Permit):
            return answer
        held = self._hold_times.seconds(answer.limit)
        return answers.refusal(answer, key_name=key_name, held_seconds=held)
