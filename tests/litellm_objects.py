"""LiteLLM's own classes, imported when they are first asked for: that takes seconds."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from importlib import import_module
from typing import Any
from unittest import mock

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
    """Let LiteLLM warn of what it likes, without its log: pytest-xdist cannot pass on every text."""
    loggers = [logging.getLogger(name) for name in ("LiteLLM", "LiteLLM Proxy", "LiteLLM Router")]
    with warnings.catch_warnings(), ExitStack() as stack:
        for logger in loggers:
            stack.enter_context(mock.patch.object(logger, "disabled", new=True))
        warnings.simplefilter("ignore")
        yield
