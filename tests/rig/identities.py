"""Keys that carry the record which LiteLLM would have of them."""

from __future__ import annotations

import hashlib
import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from uuid import uuid4

CALLER = "x-rig-caller"
"""The header by which the provider knows who called the proxy."""

TAKES = "x-rig-takes"
"""The header by which a request tells the provider how many seconds to take, if its model heeds that."""


def key(**record: object) -> str:
    """Return a new API key; `record` holds the fields of the auth object it stands for.

    In `rows` stands what LiteLLM's cache has of its parties (`tests.rig.rows`). No two keys are the same,
    so no two tests share one.
    """
    return f"sk-{_carrying(record)}"


def raw_key(**record: object) -> str:
    """Return a new API key that its auth object keeps as it is, as some custom auths do.

    LiteLLM puts its hash there of what begins with `sk-`, and of nothing else.
    """
    return f"raw-{_carrying(record)}"


def admin_key() -> str:
    """Return the key of a proxy admin."""
    return key(user_role="proxy_admin", user_id="admin")


def caller(api_key: str) -> str:
    """Return the name by which the provider knows the holder of `api_key`."""
    return hashlib.sha256(api_key.encode()).hexdigest()[:12]


def _carrying(record: Mapping[str, object]) -> str:
    named = {"key_alias": f"key-{uuid4().hex[:12]}", **record}
    carried = {"nonce": uuid4().hex, "rows": named.pop("rows", {}), "record": named}
    return urlsafe_b64encode(json.dumps(carried).encode()).decode()
