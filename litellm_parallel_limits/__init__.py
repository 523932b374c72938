"""Limits on requests in flight for the LiteLLM proxy.

Name `litellm_parallel_limits.proxy_handler_instance` in `litellm_settings.callbacks`. Importing this
package imports nothing of LiteLLM's; each name below is made when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from litellm_parallel_limits.auth import UserAPIKeyAuth, model_max_parallel_requests
    from litellm_parallel_limits.plugin import ParallelLimits

    proxy_handler_instance: ParallelLimits

__all__ = ["UserAPIKeyAuth", "model_max_parallel_requests", "proxy_handler_instance"]


def __getattr__(name: str) -> Any:
    if name == "proxy_handler_instance":
        value = import_module("litellm_parallel_limits.entry").build()
    elif name in __all__:
        value = getattr(import_module("litellm_parallel_limits.auth"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value  # made once
    return value
