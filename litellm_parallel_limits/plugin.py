"""The LiteLLM callback that admits each request, or refuses it."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import litellm
from fastapi import HTTPException
from litellm.integrations.custom_logger import CustomLogger
from litellm.proxy._types import UserAPIKeyAuth

from litellm_parallel_limits import answers, background_work
from litellm_parallel_limits.admission import Admission, announce
from litellm_parallel_limits.answers import Refusal
from litellm_parallel_limits.calls import calls, key_name
from litellm_parallel_limits.errors import GoneError, TooManyLimitsError
from litellm_parallel_limits.groups import find
from litellm_parallel_limits.holder import Asked, Holder, current_holder
from litellm_parallel_limits.known import Asking, Known, said
from litellm_parallel_limits.limits import Patience
from litellm_parallel_limits.model_info import Entry, deployment_id
from litellm_parallel_limits.models import asking_for
from litellm_parallel_limits.paths import model_in
from litellm_parallel_limits.records import Found
from litellm_parallel_limits.room import Line
from litellm_parallel_limits.routing import Routing
from litellm_parallel_limits.sources import Call, Identity
from litellm_parallel_limits.tables import table
from litellm_parallel_limits.tracing import trace

LookUpRecords = Callable[[Any, Sequence[Call]], Awaitable[Found]]

HANDED_ON = "pass_through_endpoint"
"""LiteLLM's kind of call that is handed on to a provider as it is; its model may stand in the path."""

FALLBACK = "fallback_depth"
"""The router's word for how many fallbacks it has gone on to; no client can take it away."""

CLIENT_CLOSED_REQUEST = 499
"""nginx' status, and LiteLLM's, for who does not wait for the answer."""

MAX_WAIT = "x-parallel-limit-max-wait"
"""The header in which a client says how many seconds it waits for a slot; never longer than it may."""

CLIENT_SECONDS = (MAX_WAIT, "x-litellm-timeout", "x-stainless-read-timeout", "x-stainless-timeout")
"""Headers in which a client says how long it waits: ours, LiteLLM's, and those of OpenAI's SDKs."""

ROUTED = ""
"""In the place of a call type, where the router's hook has none."""

STRANGER = Asked()
"""Who calls the router without having passed LiteLLM's pre-call hooks: nobody knows anything of them."""


class ParallelLimits(CustomLogger):  # type: ignore[misc]  # LiteLLM is untyped to us
    """Takes a slot in every limit that a request meets, before LiteLLM calls the provider.

    `router` gives LiteLLM's, which it has only after it has loaded its callbacks. `look_up` gives what
    LiteLLM's records say of the parties of a request's calls; it is also given LiteLLM's auth object.
    `take_over` takes from that object what is ours to enforce, before it is read. `renewed` gives that
    object as LiteLLM knows it by now.
    """

    def __init__(
        self,
        admission: Admission,
        routing: Routing,
        *,
        router: Callable[[], Any],
        look_up: LookUpRecords,
        take_over: Callable[[Any], None] = lambda _: None,
        renewed: Callable[[Any], Any] = lambda auth: auth,
    ) -> None:
        super().__init__()
        self._admission = admission
        self._routing = routing
        self._line = Line(admission, routing)
        self._router = router
        self._look_up = look_up
        self._take_over = take_over
        self._renewed = renewed
        self._known = Known()

    # Each hook is defined on this very class, with LiteLLM's own parameter names: it looks for both.
    async def async_pre_call_hook(
        self,
        user_api_key_dict: Any,
        cache: Any,  # noqa: ARG002 (LiteLLM's)
        data: dict[str, Any],
        call_type: str,
    ) -> None:
        """Admit the request or raise the error that refuses it."""
        holder = _open_holder() or _holder_of_task()
        try:
            asked = await self._asked(holder, user_api_key_dict, data, call_type)
            refusal = await self._admission.admit(holder, asked)
        except TooManyLimitsError as error:
            raise HTTPException(400, str(error)) from error
        except GoneError as error:
            raise HTTPException(CLIENT_CLOSED_REQUEST, str(error)) from error
        trace(user_api_key_dict, holder, refusal)
        if refusal is not None:
            raise _error(refusal)

    async def async_filter_deployments(
        self,
        model: str,
        healthy_deployments: list[Any],
        messages: Any,  # noqa: ARG002 (LiteLLM's)
        request_kwargs: dict[str, Any] | None = None,
        parent_otel_span: Any = None,  # noqa: ARG002 (LiteLLM's, or a client's)
    ) -> list[Any]:
        """Return those deployments of `model` that have room, or raise the error that refuses the request."""
        holder = _open_holder()
        if holder is None or not request_kwargs:  # of LiteLLM's own accord, or a look at the list and no call
            return healthy_deployments
        try:
            answer = await self._with_room(holder, model, request_kwargs, healthy_deployments)
        except TooManyLimitsError as error:
            raise litellm.BadRequestError(str(error), model, llm_provider="") from error
        except GoneError as error:
            raise HTTPException(CLIENT_CLOSED_REQUEST, str(error)) from error
        trace(_auth(request_kwargs), holder, answer if isinstance(answer, Refusal) else None)
        if isinstance(answer, Refusal):
            announce(holder, holder.asked or STRANGER, answer.headers, refused=answer.status)
            holder.turned_away = _router_error(answer, model)
            raise holder.turned_away
        holder.turned_away = None
        return list(answer)

    async def async_pre_call_deployment_hook(self, kwargs: dict[str, Any], call_type: Any) -> None:  # noqa: ARG002
        """Hold a slot in no other deployment than the one that the router has chosen."""
        holder = _open_holder()
        if holder is None:
            return
        if not kwargs.get("model_info"):
            if holder.turned_away is not None:
                raise holder.turned_away  # LiteLLM hands some requests on where its router has failed
            return
        if kwargs.get(FALLBACK) and not self._routing.knows(holder, kwargs):
            await self._follow_to_id(holder, kwargs)
        self._routing.chose(holder, kwargs)

    async def async_post_call_failure_deployment_hook(
        self,
        request_data: Mapping[str, Any],
        exception: Exception,  # noqa: ARG002 (LiteLLM's)
        call_type: Any,  # noqa: ARG002 (LiteLLM's)
        fallback_depth: int | None = None,  # noqa: ARG002 (LiteLLM's)
    ) -> None:
        """Give back the slot in the deployment that failed: it may be long until the next attempt."""
        holder = _open_holder()
        if holder is not None and holder.attempts:
            self._routing.failed(holder, request_data)

    async def _asked(self, holder: Holder, auth: Any, data: Mapping[str, Any], call_type: str) -> Asked:
        self._take_over(auth)
        if call_type == HANDED_ON and not data.get("model"):
            data = {**data, "model": model_in(holder.path)}
        calls, name = await self._asking(auth, data, call_type)
        return Asked(
            run=_run_of(holder, data, call_type),
            id=data.get("litellm_call_id"),
            calls=calls,
            model=answers.shown(str(data.get("model") or "")),
            key_name=name,
            patience=partial(self._patience, holder, calls[0], data),  # no closures: they are kept for long
            again=partial(self._calls_by_now, auth, data, call_type),
        )

    def _patience(self, holder: Holder, call: Call, data: Mapping[str, Any]) -> Patience:
        return self._admission.patience(call, _client_seconds(holder, data))

    async def _calls_by_now(self, auth: Any, data: Mapping[str, Any], call_type: str) -> tuple[Call, ...]:
        return await self._calls(self._renewed(auth), data, call_type)

    async def _asking(self, auth: Any, data: Mapping[str, Any], call_type: str) -> Asking:
        told = said(auth, data, call_type)
        asking = self._known.get(told)
        if asking is None:
            asking = Asking(await self._calls(auth, data, call_type), key_name(auth))
            self._known.keep(told, asking)
        return asking

    async def _calls(self, auth: Any, data: Mapping[str, Any], call_type: str) -> tuple[Call, ...]:
        known = calls(auth, data, call_type, self._router())
        found = await self._look_up(auth, [_counted(one, data) for one in known])
        if not found:
            return known
        return tuple(replace(one, records={**one.records, **found}) for one in known)

    async def _with_room(
        self, holder: Holder, model: str, request: Mapping[str, Any], deployments: Sequence[Entry]
    ) -> Sequence[Entry] | Refusal:
        call = await self._catch_up(holder, model, request)
        for group in self._strays(holder, model, deployments):
            if not isinstance(call, Refusal):
                call = await self._catch_up(holder, group, {**request, FALLBACK: 1})
        if isinstance(call, Refusal):
            return call
        asked = holder.asked or STRANGER
        answer = await self._routing.with_room(holder, asked, call, deployments)
        if isinstance(answer, Refusal) and self._line.may_wait(holder, asked, call, answer):
            return await self._line.wait(holder, asked, call, deployments)
        return answer

    async def _catch_up(self, holder: Holder, model: str, request: Mapping[str, Any]) -> Call | Refusal:
        """Return the call that the router chooses for; take its slots if no pre-call hook of ours has.

        LiteLLM takes some routes to its router only, and models that the router chooses or falls back to.
        """
        if holder.asked is None:
            auth = _auth(request)
            if auth is None:
                return STRANGER.calls[0]
            asked = await self._asked(holder, auth, {"model": model}, ROUTED)
            return await self._admission.admit(holder, asked) or asked.calls[0]
        asked = holder.asked
        call = self._resolved(asked.calls[0], model)
        ids = _ids(call)
        known = next((one for one in asked.calls if _ids(one) == ids), None)
        is_own = asked.id is not None and request.get("litellm_call_id") == asked.id
        if not (is_own or request.get(FALLBACK) or holder.is_refused):
            return known or call  # of a call nested in it
        has_failed = (holder.routed and is_own) or holder.is_refused
        holder.routed = True
        goes_on_again = request.get(FALLBACK) and len(asked.calls) > 1  # each of a list for itself
        if known is not None and not holder.is_refused and not goes_on_again:
            return known
        return await self._admission.go_on(holder, asked, call, instead=has_failed) or call

    def _resolved(self, call: Call, model: str) -> Call:
        """Return `call` as one for `model`, a name that the router knows."""
        known: Call | None = call.known.get(("for", model))
        if known is None:
            known = asking_for(call.without_models(), model, model, self._router())
            call.known["for", model] = known
        return known

    def _strays(self, holder: Holder, model: str, deployments: Sequence[Entry]) -> set[str]:
        """Return the groups of which the router offers deployments that do not answer for `model`.

        A client can ask for what is behind a name (`specific_deployment`), and there may be other ways.
        """
        if holder.asked is None:
            return set()
        call, router = holder.asked.calls[0], self._router()
        expected: frozenset[str] | None = call.known.get(("deployments", model))
        if expected is None:
            expected = frozenset(map(deployment_id, find(router, model, call.team).entries))
            call.known["deployments", model] = expected
        strays = [one for one in map(deployment_id, deployments) if one not in expected]
        return {find(router, one, call.team).name for one in strays}

    async def _follow_to_id(self, holder: Holder, request: Mapping[str, Any]) -> None:
        """Take the slots of a fallback that names a deployment by its id: the router asks nobody about it."""
        if holder.asked is None:
            return
        answer = await self._catch_up(holder, deployment_id(request), request)
        if isinstance(answer, Refusal):
            # Not a 429: for that the router would set the deployment aside, for everybody.
            raise litellm.BadRequestError(answer.message, str(request.get("model")), llm_provider="")


def _client_seconds(holder: Holder, data: Mapping[str, Any]) -> float:
    """Return how many seconds more a client waits at most: for a slot, or for its answer."""
    said = [data.get("timeout"), *map(holder.header, CLIENT_SECONDS)]
    longest = min((seconds for value in said for seconds in _seconds(value)), default=math.inf)
    return longest - (time.monotonic() - holder.began)


def _seconds(value: object) -> Iterator[float]:
    """Yield the number of seconds that is said, if it is one."""
    with suppress(TypeError, ValueError, OverflowError):
        seconds = float(value)  # type: ignore[arg-type]  # a client's: anything
        if seconds >= 0:  # and no NaN
            yield seconds


def _run_of(holder: Holder, data: Mapping[str, Any], call_type: str) -> object:
    """Return on whose account a run through the chain takes: the request's own, or of a call nested in it."""
    described = _run(holder, data, call_type)
    if described is None and holder.run is not None:
        return object()
    if not isinstance(holder.run, tuple):  # where LiteLLM describes none, the first is its own
        holder.run = described or object()
    if described not in {None, holder.run}:
        return object()
    holder.routed = False
    holder.work = background_work.work(data, call_type)
    return holder.run


def _run(holder: Holder, data: Mapping[str, Any], call_type: str) -> object:
    """Return what tells a request's own run through the chain from that of a call nested in it.

    LiteLLM describes the HTTP request itself to the former only.
    """
    request = data.get("proxy_server_request")
    url = request.get("url") if isinstance(request, Mapping) else None
    is_own = isinstance(url, str) and holder.path and urlsplit(url).path.endswith(holder.path)
    return (call_type, url) if is_own else None


def _open_holder() -> Holder | None:
    """Return the holder of the request that is under way, None if it has ended or there was none."""
    holder = current_holder.get()
    return None if holder is None or holder.is_closed else holder


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


def _auth(request: Mapping[str, Any]) -> Any:
    """Return LiteLLM's auth object of a request to its router, None if it carries none.

    What a client has put in its place is no object of LiteLLM's.
    """
    for place in (request.get("litellm_metadata"), request.get("metadata")):
        auth = table(place).get("user_api_key_auth")
        if isinstance(auth, UserAPIKeyAuth):
            return auth
    return None


def _counted(call: Call, data: Mapping[str, Any]) -> Call:
    """Return `call` as one for a model that is counted, also where it is left out: its fallback may be."""
    model = data.get("model")
    return replace(call, models=(Identity(model),)) if isinstance(model, str) and not call.models else call


def _ids(call: Call) -> list[str]:
    return [model.id for model in call.models]


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


def _router_error(refusal: Refusal, model: str) -> Exception:
    """Return an error that the router tries the model's fallbacks for, and nothing else of the model's."""
    error: Exception
    if refusal.status != answers.REFUSED_STATUS:
        error = litellm.ServiceUnavailableError(refusal.message, model=model, llm_provider="")
    elif not isinstance(error := _rate_limit_error(refusal), litellm.RateLimitError):
        error = litellm.RateLimitError(refusal.message, model=model, llm_provider="")
    error.num_retries = 0  # type: ignore[attr-defined]  # the router's: the deployments are as full at once
    return error
