"""What of a configuration is not to be shown."""

from __future__ import annotations

import re

from litellm_parallel_limits.cli.text import plain

_KEY = re.compile(r"(?<![A-Za-z0-9])sk-[\w-]+")
_HASH = re.compile(r"\b([0-9a-f]{8})[0-9a-f]{56}\b")
_LOGIN = re.compile(r"//[^/\s@]*@")
_WHOLE = re.compile(r"; got [\[({].*", re.DOTALL)
"""A table or a list that stands in the wrong place: anything may be in it."""


def shown(text: str) -> str:
    """Return `text` without keys, logins, and whole parts of a configuration, as one plain line."""
    text = plain(_WHOLE.sub("", text))
    return _LOGIN.sub("//…@", _HASH.sub(r"\1…", _KEY.sub("sk-…", text)))
