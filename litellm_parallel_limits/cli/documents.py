"""What the proxy answers, as the values it was made of."""

from __future__ import annotations

from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from litellm_parallel_limits.cli.exits import NotAnsweredError
from litellm_parallel_limits.cli.text import cleaned
from litellm_parallel_limits.explain import Explanation
from litellm_parallel_limits.health import Health
from litellm_parallel_limits.history import Past
from litellm_parallel_limits.status import Status

_STATUS = TypeAdapter(Status)
_PAST = TypeAdapter(Past)
_HEALTH = TypeAdapter(Health)
_EXPLANATION = TypeAdapter(Explanation)

_T = TypeVar("_T")


def status(document: object) -> Status:
    """Return what is in flight. Raises NotAnsweredError for what is no such document."""
    return _read(_STATUS, document)


def past(document: object) -> Past:
    """Return what was in flight. Raises NotAnsweredError for what is no such document."""
    return _read(_PAST, document)


def health(document: object) -> Health:
    """Return how the limiter is. Raises NotAnsweredError for what is no such document."""
    return _read(_HEALTH, document)


def explanation(document: object) -> Explanation:
    """Return which limits a request meets. Raises NotAnsweredError for what is no such document."""
    return _read(_EXPLANATION, document)


def _read(kind: TypeAdapter[_T], document: object) -> _T:
    try:
        return kind.validate_python(cleaned(document))
    except (ValidationError, RecursionError):
        raise NotAnsweredError(
            "The proxy's answer cannot be read: is its litellm-parallel-limits of another version?"
        ) from None
