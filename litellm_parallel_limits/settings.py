"""What the operator may set, and what is said of a mistake."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from reprlib import Repr
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from litellm_parallel_limits.built_in import BUILT_IN, ignore_invalid
from litellm_parallel_limits.errors import ConfigurationError
from litellm_parallel_limits.limits import (
    LONGEST_WAIT_SECONDS,
    MOST_PARALLEL_REQUESTS,
    Mode,
    OnStoreFailure,
    whole_number,
)
from litellm_parallel_limits.model_info import SECTION
from litellm_parallel_limits.policy import OperatorLimit, Policy
from litellm_parallel_limits.sources import Dimension
from litellm_parallel_limits.tables import is_off, table
from litellm_parallel_limits.wait_rules import MOST_WAITING, WaitRule

ENVIRONMENT = "LITELLM_PARALLEL_LIMITS_"
"""Begins the environment variables that override the YAML."""

RESERVED_NAMES = frozenset(built_in.name for built_in in BUILT_IN)
"""LiteLLM's own names for limits: an operator's limit has another."""

Party = Literal["key", "user", "team", "organization", "project", "end_user", "tag", "model"]
"""What is known of a request before the router has chosen a deployment."""

Turns = Literal["key", "user", "team", "organization", "project", "end_user", "model"]
"""Of which a call has one at most: whose turn it takes."""

TABLES = frozenset({"limits", "wait"})
"""Settings that are no single value, and so no environment variable."""

LONGEST_SHOWN = 80
"""Characters of a mistaken value in a message: a line."""

_REPR = Repr()  # repr() itself does not end for a few lines of YAML whose aliases multiply
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = LONGEST_SHOWN + 1

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
Number = Annotated[int | None, BeforeValidator(whole_number)]
Texts = Annotated[
    tuple[str, ...], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)
]


class WaitSettings(BaseModel):
    """How requests wait for a limit instead of being refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_seconds: float = Field(ge=0, le=LONGEST_WAIT_SECONDS, allow_inf_nan=False)
    """Seconds that a request waits at most; 0 = not at all."""
    max_waiting: int = Field(default=MOST_WAITING, ge=1, le=MOST_PARALLEL_REQUESTS)
    """Requests that wait in each scope at most; one more is refused at once."""
    fair_by: Turns | None = "user"
    """Whose requests take turns as one; null = first come, first served."""

    def rule(self) -> WaitRule:
        """Return the rule that these settings describe."""
        return WaitRule(self.max_seconds, self.max_waiting, self.fair_by)


class LimitSettings(BaseModel):
    """One limit of the operator's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    """Stands in headers, metrics and Redis keys."""
    max_parallel_requests: Number
    """The most requests in flight in each scope; 0 blocks, null sets no limit."""
    by: tuple[Literal[Party, "deployment"], ...] = ()
    """What has a count of its own; empty = everybody together."""
    models: Texts = ()
    """Names or globs of the models it is about, as sent or as resolved; empty = all requests."""
    where: dict[Party, Annotated[Texts, Field(min_length=1)]] = {}
    """Whom it is about, by id or alias, globs allowed; empty = everybody."""
    mode: Mode | None = None
    """`observe` counts and refuses nothing; by default the section's mode."""
    on_store_failure: OnStoreFailure | None = None
    """What holds while the store is out; by default the section's."""
    wait: WaitSettings | None = None
    """How requests wait for a slot; by default they are refused at once."""

    @field_validator("name")
    @classmethod
    def _is_its_own(cls, name: str) -> str:
        if name in RESERVED_NAMES:
            raise ValueError("this name is LiteLLM's own; allowed: any other")
        return name


class DeploymentSettings(BaseModel):
    """What stands in a deployment's `model_info.parallel_limits`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool = True
    """False leaves the deployment out of every limit that has to do with models."""
    max_parallel_requests: Number = None
    """The most requests in flight in this deployment, retries and fallbacks of others included."""
    model_max_parallel_requests: Number = None
    """The most requests in flight of its model; of several deployments the largest number holds."""


class Settings(BaseModel):
    """Everything below `litellm_settings.parallel_limits`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool = True
    """False leaves LiteLLM as if this package were not there."""
    mode: Mode = "enforce"
    """`observe` counts everything and refuses nothing."""
    store: Literal["auto", "memory", "host", "redis"] = "auto"
    """Where leases are kept; auto = LiteLLM's Redis if it has one, host if several workers, else memory."""
    lease_ttl: float = Field(default=30.0, ge=3.0, le=3600.0, allow_inf_nan=False)
    """Seconds until a lease that nobody renews lapses; renewed three times as often."""
    on_store_failure: OnStoreFailure = "share"
    """What holds while the store is out: limit / live workers, everything, or nothing (503)."""
    store_timeout_ms: int = Field(default=250, ge=10, le=10_000)
    """Milliseconds a request waits for the store at most."""
    take_over_key_limit: bool = False
    """True has us enforce a key's own `max_parallel_requests` in LiteLLM's place; not while we observe."""
    wait: WaitSettings | None = None
    """How requests wait for a slot in the limits that come from records; by default they do not."""
    host_path: Path | None = None
    """The host store's file; by default one that the workers of one parent share."""
    limits: tuple[LimitSettings, ...] = ()
    """The operator's own limits."""

    def policy(self, on_invalid: Any = ignore_invalid) -> Policy:
        """Return the policy that these settings describe."""
        limits = tuple(self._limit(limit, number) for limit, number in self._numbered())
        takes_over = self.take_over_key_limit and self.mode == "enforce"
        wait = None if self.wait is None else self.wait.rule()
        return Policy(limits, self.mode, self.on_store_failure, on_invalid, takes_over, wait)

    def _numbered(self) -> Iterable[tuple[LimitSettings, int]]:
        for limit in self.limits:
            if limit.max_parallel_requests is not None:
                yield limit, limit.max_parallel_requests

    def _limit(self, limit: LimitSettings, number: int) -> OperatorLimit:
        return OperatorLimit(
            limit.name,
            number,
            limit.by,
            limit.models,
            cast("Mapping[Dimension, tuple[str, ...]]", limit.where),
            limit.mode or self.mode,
            limit.on_store_failure or self.on_store_failure,
            None if limit.wait is None else limit.wait.rule(),
        )


def read(section: object, environment: Mapping[str, str]) -> Settings:
    """Return the settings in `section`, overridden by `environment`.

    Raises ConfigurationError, which names each entry at fault and what is allowed there.
    """
    if section is not None and not isinstance(section, Mapping):
        raise ConfigurationError(f"{SECTION}: not a table of settings, but {type(section).__name__}")
    _check_variables(environment)
    overrides = {
        name: environment[ENVIRONMENT + name.upper()]
        for name in Settings.model_fields
        if name not in TABLES and ENVIRONMENT + name.upper() in environment
    }
    try:
        settings = Settings.model_validate({**(section or {}), **overrides})
    except ValidationError as error:
        if is_off(overrides.get("enabled")):
            return Settings(enabled=False)  # an operator's way out of trouble, this section's as well
        raise ConfigurationError(_mistakes(error, SECTION, Settings, overrides)) from None
    names = [limit.name for limit in settings.limits]
    for place, name in enumerate(names):
        if name in names[:place]:
            raise ConfigurationError(
                f"{SECTION}.limits[{place}].name: '{name}' is given twice; allowed: once"
            )
    return settings


def _check_variables(environment: Mapping[str, str]) -> None:
    allowed = [ENVIRONMENT + name.upper() for name in Settings.model_fields if name not in TABLES]
    for name in environment:
        if name.startswith(ENVIRONMENT) and name not in allowed:
            raise ConfigurationError(f"{name}: unknown; allowed: {', '.join(allowed)}")


def check_deployments(model_list: object) -> None:
    """Raise ConfigurationError if something is wrong in the `model_info` of one of LiteLLM's `model_list`."""
    for place, entry in enumerate(model_list if isinstance(model_list, list) else ()):
        section = table(table(entry).get("model_info")).get(SECTION)
        if section is None:
            continue
        try:
            DeploymentSettings.model_validate(section)
        except ValidationError as error:
            where = f"model_list[{place}].model_info.{SECTION}"
            raise ConfigurationError(_mistakes(error, where, DeploymentSettings, {})) from None


def _mistakes(
    error: ValidationError, where: str, model: type[BaseModel], overrides: Mapping[str, str]
) -> str:
    return "\n".join(_mistake(mistake, where, model, overrides) for mistake in error.errors())


def _mistake(mistake: Any, where: str, model: type[BaseModel], overrides: Mapping[str, str]) -> str:
    location = [part for part in mistake["loc"] if part != "[key]"]  # pydantic's word for "not the value"
    if location and location[0] in overrides:
        entry = ENVIRONMENT + str(location[0]).upper()
    else:
        entry = where + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    if mistake["type"] == "extra_forbidden":
        return f"{entry}: unknown; allowed: {', '.join(_table_at(location, model).model_fields)}"
    told = mistake["msg"].removeprefix("Value error, ").replace("tuple", "list").replace("Tuple", "List")
    return f"{entry}: {told}; got {_shown(mistake['input'])}"


def _table_at(location: Sequence[str | int], model: type[BaseModel]) -> type[BaseModel]:
    """Return the table in which something stands that is there at `location`."""
    if "wait" in location[:-1]:
        return WaitSettings
    return LimitSettings if location[0] == "limits" and len(location) > 1 else model


def _shown(value: object) -> str:
    text = _REPR.repr(value)
    return text if len(text) <= LONGEST_SHOWN else text[: LONGEST_SHOWN - 1] + "…"
