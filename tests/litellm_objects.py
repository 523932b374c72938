"""LiteLLM's own classes, imported when they are first asked for: that takes seconds."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from typing import Any

OFFLINE = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False"}
"""What keeps LiteLLM from looking for the internet."""


@cache
def imported(module: str) -> Any:
    """Return a module that imports LiteLLM."""
    for name, value in OFFLINE.items():
        os.environ.setdefault(name, value)
    with warnings_of_its_own():
        return import_module(module)


def auth(**fields: object) -> Any:
    """Return LiteLLM's auth object of a request."""
    of = imported("litellm.proxy._types").UserAPIKeyAuth
    with warnings_of_its_own():  # it imports more of itself where a key is not hashed
        return of(**fields)


@contextmanager
def warnings_of_its_own() -> Iterator[None]:
    """Let LiteLLM warn of what it likes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
