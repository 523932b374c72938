"""Tables that somebody else wrote, which may be anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def table(value: object) -> Mapping[str, Any]:
    """Return `value` if it is a table, else an empty one."""
    return value if isinstance(value, Mapping) else {}
