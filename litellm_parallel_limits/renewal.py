"""What LiteLLM knows of a key by now."""

from __future__ import annotations

from typing import Any

RECORDS = ("metadata", "team_metadata", "organization_metadata", "project_metadata")
"""Of LiteLLM's auth object: where numbers stand that an admin may have changed meanwhile."""


def renewed(auth: Any, cache: Any) -> Any:
    """Return LiteLLM's `auth` object with the records that its `cache` of keys has of it in this worker.

    Nothing is looked up, and `auth` stays as it is.
    """
    memory = getattr(cache, "in_memory_cache", None)
    known = memory.get_cache(auth.token) if memory is not None and getattr(auth, "token", None) else None
    if known is None or type(known) is not type(auth):
        return auth
    records = {name: getattr(known, name) for name in RECORDS if hasattr(known, name)}
    return auth.model_copy(update=records)
