"""LiteLLM's objects, read as a call."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from litellm_parallel_limits import native_field
from litellm_parallel_limits.answers import SHORT_HASH
from litellm_parallel_limits.errors import TooManyLimitsError
from litellm_parallel_limits.models import asking_for
from litellm_parallel_limits.sources import Call, Dimension, Identity, Record
from litellm_parallel_limits.tables import table

MOST_MODELS = 32
"""In one request, separated by commas. Ours: each is a limit to check, and a call to a provider."""

MOST_TAGS = 128
"""Of one request. Ours: each is looked up."""

SEVERAL = "acompletion"
"""LiteLLM's kind of call that may name several models, parted by commas."""

WITHOUT_MODEL = frozenset({"call_mcp_tool"})
"""LiteLLM's kinds of calls whose model is no model, but says what is called."""

_HASH = re.compile(r"[0-9a-f]{64}")
_MASKED = re.compile(r"sk-\.\.\..{1,8}")

_FIELDS: Mapping[Dimension, tuple[str, ...]] = {
    "user": ("user_id", "user_email"),
    "team": ("team_id", "team_alias"),
    "end_user": ("end_user_id",),
    "organization": ("org_id", "organization_alias"),
    "project": ("project_id", "project_alias"),
}
"""The fields of LiteLLM's auth object that identify each party, the id first, then its aliases."""

_AUTH_NUMBERS = ("user_max_parallel_requests", "team_max_parallel_requests")

NAMES = (
    "api_key",
    "token",
    "key_alias",
    "key_name",
    *(field for fields in _FIELDS.values() for field in fields),
)
"""The fields of LiteLLM's auth object from which a call has the names of its parties."""

TABLES = (
    *_AUTH_NUMBERS,
    "metadata",
    "model_max_budget",
    "team_metadata",
    "organization_metadata",
    "project_metadata",
    "aliases",
    "team_model_aliases",
)
"""Its other fields that decide over a call."""


def caller(auth: Any) -> Call:
    """Return who calls, from LiteLLM's `UserAPIKeyAuth`, and what its records say."""
    identities: dict[Dimension, Identity] = {}
    key = key_hash(auth)
    if key is not None:
        identities["key"] = Identity(key, tuple(_public_names(auth)))
    for dimension, fields in _FIELDS.items():
        names = _texts(getattr(auth, field, None) for field in fields)
        if names and getattr(auth, fields[0], None):
            # Some custom auth gives the key for the user's id: it is counted by its hash then.
            known = _hashed(names[0]) if _tells_the_key(names[0], auth) else names[0]
            identities[dimension] = Identity(known, names[1:])
    records: dict[Record, Mapping[str, object]] = {
        "auth": {
            **{name: getattr(auth, name, None) for name in _AUTH_NUMBERS},
            native_field.FIELD: native_field.taken(auth),
        },
        "key metadata": table(getattr(auth, "metadata", None)),
        "key model_max_budget": _plain(table(getattr(auth, "model_max_budget", None))),
        "team metadata": table(getattr(auth, "team_metadata", None)),
        "organization metadata": table(getattr(auth, "organization_metadata", None)),
        "project metadata": table(getattr(auth, "project_metadata", None)),
    }
    return Call(identities, records=records)


def calls(auth: Any, data: Mapping[str, Any], call_type: str, router: Any) -> tuple[Call, ...]:
    """Return the calls that LiteLLM is about to make for a request: one for each model that it names.

    `data` and `call_type` are the request as LiteLLM's pre-call hooks see it, `router` is LiteLLM's, None
    if it has none. Raises TooManyLimitsError.
    """
    known = replace(caller(auth), tags=tuple(map(Identity, tags(data))))
    if len(known.tags) > MOST_TAGS:
        raise TooManyLimitsError(f"A request may have {MOST_TAGS} tags at most, not {len(known.tags)}.")
    model = data.get("model")
    if not isinstance(model, str) or not model or call_type in WITHOUT_MODEL:
        return (known,)
    sent = _sent(auth, data, model)
    if "," not in model or call_type != SEVERAL:
        return (asking_for(known, model, sent, router),)
    names = [part.strip() for part in model.split(",")]
    if len(names) > MOST_MODELS:
        raise TooManyLimitsError(f"A request may name {MOST_MODELS} models at most, not {len(names)}.")
    return tuple(asking_for(known, name, name, router) for name in names if name) or (known,)


def tags(data: Mapping[str, Any]) -> list[str]:
    """Return the tags of a request, each once: the client's, and those LiteLLM adds of its key and team."""
    places = (data, table(data.get("metadata")), table(data.get("litellm_metadata")))
    lists = [tags for place in places if isinstance(tags := place.get("tags"), list)]
    if not lists:
        return []
    return list(dict.fromkeys(tag for tags in lists for tag in tags if isinstance(tag, str) and tag))


def key_hash(auth: Any) -> str | None:
    """Return the hash that a key is counted by; custom auth may hand over the secret itself."""
    raw = getattr(auth, "api_key", None) or getattr(auth, "token", None)
    if not raw:
        return None
    text = str(raw)
    return text if _HASH.fullmatch(text) else _hashed(text)


def key_name(auth: Any) -> str:
    """Return what the key may be called in public: its alias, its masked name, or a bit of its hash."""
    return next(iter(_public_names(auth)), (key_hash(auth) or "")[:SHORT_HASH])


def _public_names(auth: Any) -> Iterable[str]:
    alias, masked = getattr(auth, "key_alias", None), getattr(auth, "key_name", None)
    if isinstance(alias, str) and alias and not _tells_the_key(alias, auth):
        yield alias
    if isinstance(masked, str) and _MASKED.fullmatch(masked):
        yield masked


def _tells_the_key(alias: str, auth: Any) -> bool:
    secrets = _texts((getattr(auth, "api_key", None), getattr(auth, "token", None)))
    return any(secret in alias for secret in secrets) or _hashed(alias) in secrets


def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def _sent(auth: Any, data: Mapping[str, Any], model: str) -> str:
    """Return the name the client sent, where an alias of its key or team led from it to `model`.

    Any other name in the body is no business of limits: beside a model in the path it would be a lie.
    """
    body = table(table(data.get("proxy_server_request")).get("body"))
    sent = body.get("model")
    aliases = (table(getattr(auth, field, None)) for field in ("aliases", "team_model_aliases"))
    return sent if isinstance(sent, str) and any(names.get(sent) == model for names in aliases) else model


def _texts(values: Iterable[object]) -> tuple[str, ...]:
    return tuple(str(value) for value in values if value is not None and value != "")


def _plain(budgets: Mapping[str, Any]) -> Mapping[str, object]:
    """Return budgets as tables: LiteLLM keeps them as such or as models of its own."""
    return {
        model: budget.model_dump() if hasattr(budget, "model_dump") else budget
        for model, budget in budgets.items()
    }
