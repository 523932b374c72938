"""What the operator says of limits in a deployment's `model_info`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from litellm_parallel_limits.limits import whole_number
from litellm_parallel_limits.tables import is_off, table

SECTION = "parallel_limits"
"""The name of our part of LiteLLM's configuration: of its settings, and of a deployment's `model_info`."""

Entry = Mapping[str, Any]
"""A deployment as LiteLLM's router keeps it."""


def said(entry: Entry) -> Mapping[str, object]:
    """Return what is said of limits, empty if nothing is."""
    section = table(entry.get("model_info")).get(SECTION)
    return {} if section is None else table(section)


def is_counted(entry: Entry) -> bool:
    """Whether requests for this deployment's model are counted by model at all."""
    return not is_off(said(entry).get("enabled", True))


def deployment_id(entry: Entry) -> str:
    """Return what LiteLLM knows the deployment by."""
    return str(table(entry.get("model_info")).get("id") or "")


def largest(values: Iterable[object]) -> object:
    """Return the largest number among `values`; if there is none, a value that should be one, or None."""
    invalid: object = None
    numbers: list[int] = []
    for value in values:
        try:
            number = whole_number(value)
        except ValueError:
            invalid = value
        else:
            numbers += [] if number is None else [number]
    return max(numbers) if numbers else invalid
