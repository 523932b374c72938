"""The LiteLLM callback that admits each request, or refuses it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from fastapi import HTTPException
from litellm.integrations.custom_logger import CustomLogger

from litellm_parallel_limits import answers
from litellm_parallel_limits.answers import Headers, Refusal
from litellm_parallel_limits.calls import call, key_name
from litellm_parallel_limits.errors import StoreUnavailableError, TooManyModelsError
from litellm_parallel_limits.hold_times import HoldTimes
from litellm_parallel_limits.limiter import Limiter, Permit
from litellm_parallel_limits.limits import Limit
from litellm_parallel_limits.middleware import Holder, current_holder
from litellm_parallel_limits.policy import Policy


class ParallelLimits(CustomLogger):  # type: ignore[misc]  # LiteLLM is untyped to us
    """Takes a slot in every limit that a request meets, before LiteLLM calls the provider.

    `limiter` and `group` are asked at the first request that needs them: LiteLLM has its Redis and its
    router only after it has loaded its callbacks. `group` tells the model group of a name.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        limiter: Callable[[], Limiter],
        hold_times: HoldTimes,
        group: Callable[[str], str],
    ) -> None:
        super().__init__()
        self._policy = policy
        self._limiter = limiter
        self._hold_times = hold_times
        self._group = group

    # Defined on this very class, with LiteLLM's own parameter names: it looks for both.
    async def async_pre_call_hook(
        self,
        user_api_key_dict: Any,
        cache: Any,  # noqa: ARG002 (LiteLLM's)
        data: dict[str, Any],
        call_type: str,
    ) -> None:
        """Admit the request or raise the error that refuses it."""
        holder = current_holder.get() or _holder_of_task()
        run = _run(holder, data, call_type)
        if holder.run is None:
            holder.run = run
        if run is not None:
            # LiteLLM runs its hooks again for a fallback: what was held and told gives way.
            holder.drop(run)
            _announce(holder, run, {})
        try:
            met = self._policy.limits(call(user_api_key_dict, data, self._group))
        except TooManyModelsError as error:
            raise HTTPException(400, str(error)) from error
        limits = [limit for limit in met if limit.scope not in holder.scopes]
        if limits:
            permit = await self._admit(holder, run, limits, user_api_key_dict, data)
            holder.keep(permit, run)
            _announce(holder, run, answers.admitted_headers(permit.admitted))

    async def _admit(
        self, holder: Holder, run: object, limits: list[Limit], auth: Any, data: Mapping[str, Any]
    ) -> Permit:
        try:
            answer = await self._limiter().admit(limits, model=answers.shown(str(data.get("model") or "")))
        except StoreUnavailableError as error:
            refusal = answers.unavailable(error.limit, str(error))
        else:
            if isinstance(answer, Permit):
                return answer
            held = self._hold_times.seconds(answer.limit)
            refusal = answers.refusal(answer, key_name=key_name(auth), held_seconds=held)
        _announce(holder, run, refusal.headers, refused=True)
        raise _error(refusal)


def _run(holder: Holder, data: Mapping[str, Any], call_type: str) -> object:
    """Return what tells a request's own run through the chain from that of a call nested in it.

    LiteLLM describes the HTTP request itself to the former only.
    """
    request = data.get("proxy_server_request")
    url = request.get("url") if isinstance(request, Mapping) else None
    is_own = isinstance(url, str) and holder.path and urlsplit(url).path.endswith(holder.path)
    return (call_type, url) if is_own else None


def _holder_of_task() -> Holder:
    """Return a holder for a call that came in without an HTTP request: it ends with its task.

    Further calls of the task share it: none of them waits for a slot that another holds.
    """
    holder = Holder()
    current_holder.set(holder)
    task = asyncio.current_task()
    if task is not None:
        task.add_done_callback(lambda _: holder.close())
    return holder


def _announce(holder: Holder, run: object, headers: Headers, *, refused: bool = False) -> None:
    """Let the request's answer carry `headers`, unless they are of a call nested in it."""
    if run == holder.run:
        holder.announce(headers, refused=refused)


def _error(refusal: Refusal) -> HTTPException:
    if refusal.status == answers.REFUSED_STATUS:
        return _rate_limit_error(refusal)
    return HTTPException(refusal.status, refusal.message, headers=dict(refusal.headers))


def _rate_limit_error(refusal: Refusal) -> HTTPException:
    """Return LiteLLM's own rate-limit error, for which it tries the model's fallbacks."""
    try:
        from litellm.proxy.common_utils.proxy_rate_limit_error import ProxyRateLimitError  # noqa: PLC0415
    except ImportError:  # before LiteLLM 1.90
        return HTTPException(refusal.status, refusal.message, headers=dict(refusal.headers))
    error: HTTPException = ProxyRateLimitError(
        refusal.message, headers=refusal.headers, rate_limit_type="max_parallel_requests"
    )
    return error
