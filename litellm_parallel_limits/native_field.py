"""The key's own `max_parallel_requests`, which LiteLLM's limiter enforces unless it is taken over."""

from __future__ import annotations

from typing import Any

from litellm_parallel_limits.limits import whole_number

FIELD = "max_parallel_requests"

_TAKEN = "_litellm_parallel_limits_taken"
"""Lies beside the fields of LiteLLM's auth object: copies of it keep this, what is written of it does not."""


def take_over(auth: Any, cache: Any) -> None:
    """Leave no number in `auth`, LiteLLM's object of one request, for LiteLLM's limiter, which runs later.

    From then on `taken` knows it. What is no number by our rule stays LiteLLM's to judge, and so
    does that of an object which `cache`, LiteLLM's of keys, keeps for further requests.
    """
    number = _number(auth)
    if number is not None and not _is_kept(auth, cache):
        vars(auth)[_TAKEN] = number
        setattr(auth, FIELD, None)


def taken(auth: Any) -> int | None:
    """Return the number that was taken over from `auth`, None if none was."""
    # On the object, not on the request: custom auth may return one object for many requests, and the next
    # of them finds no number in the field.
    number: int | None = getattr(auth, "__dict__", {}).get(_TAKEN)
    return number


def _number(auth: Any) -> int | None:
    try:
        return whole_number(getattr(auth, FIELD, None))
    except ValueError:
        return None


def _is_kept(auth: Any, cache: Any) -> bool:
    """Whether `cache` holds `auth` itself: LiteLLM 1.80 gives it to proxy admins; later ones give copies."""
    memory, key = getattr(cache, "in_memory_cache", None), getattr(auth, "token", None)
    return memory is not None and bool(key) and memory.get_cache(key) is auth
