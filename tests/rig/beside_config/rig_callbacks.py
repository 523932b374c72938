"""Other callbacks of the proxy, which fail where a request asks for it by the header `x-rig-fail`.

One stands before the plugin in the list of callbacks, one after it; and one does nothing.
"""
# ruff: noqa: ARG002 (LiteLLM passes every argument, by its name)

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from fastapi import HTTPException
from litellm.integrations.custom_logger import CustomLogger

FAIL = "x-rig-fail"
RIG = "x-rig-"
IS_OLD = version("litellm").startswith(("1.80.", "1.90."))
UNTOLD = ("atext_completion", "aembedding", "aresponses")
"""Of these LiteLLM 1.80 does not pass on what headers the client sent, nor does 1.90 of the last."""


def _fail_if_asked(data: dict[str, Any], where: str) -> None:
    headers = (data.get("proxy_server_request") or {}).get("headers") or {}
    if headers.get(FAIL) == where:
        raise HTTPException(status_code=403, detail=f"rejected by {where}")


def _tell_who_calls(data: dict[str, Any]) -> None:
    headers = data["proxy_server_request"]["headers"]
    data["extra_headers"] = {name: value for name, value in headers.items() if name.startswith(RIG)}


class _Before(CustomLogger):  # type: ignore[misc]  # LiteLLM is untyped to us
    async def async_pre_call_hook(
        self, user_api_key_dict: Any, cache: Any, data: dict[str, Any], call_type: str
    ) -> None:
        _fail_if_asked(data, "before")
        if IS_OLD and call_type in UNTOLD:
            _tell_who_calls(data)


class _After(CustomLogger):  # type: ignore[misc]  # LiteLLM is untyped to us
    async def async_pre_call_hook(
        self, user_api_key_dict: Any, cache: Any, data: dict[str, Any], call_type: str
    ) -> None:
        _fail_if_asked(data, "after")

    async def async_moderation_hook(
        self, data: dict[str, Any], user_api_key_dict: Any, call_type: str
    ) -> None:
        _fail_if_asked(data, "moderation")

    async def async_post_call_success_hook(
        self, data: dict[str, Any], user_api_key_dict: Any, response: Any
    ) -> None:
        _fail_if_asked(data, "success")


class _Idle(CustomLogger):  # type: ignore[misc]  # LiteLLM is untyped to us
    pass


before = _Before()
after = _After()
idle = _Idle()
