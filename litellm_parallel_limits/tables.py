"""Tables that somebody else wrote, which may be anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

OFF = frozenset({"0", "f", "false", "n", "no", "off"})
"""What pydantic reads as False, in small letters."""


def is_off(value: object) -> bool:
    """Whether `value` says no, as a boolean or in words."""
    return str(value).strip().lower() in OFF


def table(value: object) -> Mapping[str, Any]:
    """Return `value` if it is a table, else an empty one."""
    # Asking for the abstract class costs ten times as much: it is asked last.
    return value if isinstance(value, dict) or (value is not None and isinstance(value, Mapping)) else {}
