"""What LiteLLM knows of a key by now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RECORDS = ("metadata", "team_metadata", "organization_metadata", "project_metadata")
"""Of LiteLLM's auth object: where numbers stand that an admin may have changed meanwhile."""


def renewed(auth: Any, cache: Any) -> Any:
    """Return LiteLLM's `auth` object with the records that its `cache` of keys has of it in this worker.

    Nothing is looked up, and `auth` stays as it is.
    """
    token = getattr(auth, "token", None)
    keys = getattr(cache, "key_object_cache", cache)  # LiteLLM keeps keys apart since 1.106
    memory = getattr(keys, "in_memory_cache", None)
    known = memory.get_cache(token) if memory is not None and token else None
    if not isinstance(known, Mapping):
        known = vars(known) if type(known) is type(auth) else {}
    records = {name: known[name] for name in RECORDS if name in known}
    return auth.model_copy(update=records) if records else auth
