"""The status of all pages there are."""

from __future__ import annotations

from typing import Any

from litellm_parallel_limits.cli.proxy import Proxy
from litellm_parallel_limits.status import MOST_A_PAGE


def whole_status(proxy: Proxy, **view: Any) -> Any:
    """Return the status with the scopes of every page. Raises NotAnsweredError.

    Scopes come and go while the pages are read: one that moves to another page may be left out.
    """
    document = proxy.get("status", page_size=MOST_A_PAGE, **view)
    scopes = {_id(scope): scope for scope in document.get("scopes", [])}
    for page in range(2, _number(document.get("total_pages")) + 1):
        more = proxy.get("status", page_size=MOST_A_PAGE, page=page, **view)
        scopes |= {_id(scope): scope for scope in more.get("scopes", [])}
    return {**document, "scopes": list(scopes.values()), "total_pages": 1, "page_size": len(scopes)}


def _id(scope: Any) -> str:
    return str(scope.get("id")) if isinstance(scope, dict) else repr(scope)


def _number(value: object) -> int:
    return value if isinstance(value, int) else 1
