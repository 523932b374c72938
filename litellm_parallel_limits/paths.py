"""The model that a path names, where a request is handed on to a provider as it is."""

from __future__ import annotations

import re

_NAMED = re.compile(
    r"/models/(?P<google>[^/:]+):\w+$"
    r"|/model/(?P<bedrock>.+)/(?:invoke|converse)[a-z-]*$"
    r"|/openai/deployments/(?P<azure>[^/]+)/"
)
"""Where Gemini and Vertex AI, Bedrock, and Azure have it."""


def model_in(path: str) -> str | None:
    """Return the model that `path` (unquoted) names, if it is one of those that name a model."""
    named = _NAMED.search(path)
    return None if named is None else next(name for name in named.groups() if name)
