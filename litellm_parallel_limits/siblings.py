"""The other workers of a proxy, as far as one of them can know."""

from __future__ import annotations

import multiprocessing
from collections.abc import Mapping


def workers(environment: Mapping[str, str]) -> int:
    """Return how many workers this proxy runs at least.

    LiteLLM tells in NUM_WORKERS; the servers that make workers themselves read WEB_CONCURRENCY.
    """
    told = [environment.get("NUM_WORKERS", "")]
    if _is_made(environment):
        told.append(environment.get("WEB_CONCURRENCY", ""))
    return max([1, *(int(number) for number in told if number.isdecimal())])


def has_siblings(environment: Mapping[str, str]) -> bool:
    """Whether this proxy runs several workers, or a server that may."""
    return workers(environment) > 1 or _is_made(environment)


def _is_made(environment: Mapping[str, str]) -> bool:
    """Whether this process is a worker that uvicorn, granian or gunicorn made."""
    is_gunicorn = environment.get("SERVER_SOFTWARE", "").startswith("gunicorn")
    return multiprocessing.parent_process() is not None or is_gunicorn
