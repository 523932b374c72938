"""What is wrong with a configuration."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from litellm_parallel_limits.cli.checks import Finding, Place
from litellm_parallel_limits.cli.checks.config_file import Config
from litellm_parallel_limits.cli.checks.known_models import KnownModels, known_models
from litellm_parallel_limits.cli.checks.reach import never_full, shadowed
from litellm_parallel_limits.cli.checks.secrets import shown
from litellm_parallel_limits.errors import ConfigurationError
from litellm_parallel_limits.model_info import SECTION
from litellm_parallel_limits.redis_named import NO_REDIS, names_redis
from litellm_parallel_limits.settings import ENVIRONMENT, Settings, check_deployments
from litellm_parallel_limits.tables import table

CALLBACK = "litellm_parallel_limits.proxy_handler_instance"
PACKAGE = "litellm_parallel_limits"
OURS = ("litellm_settings", SECTION)
"""Where our section stands."""

_ENTRY = re.compile(rf"(?:{SECTION}|model_list)(?:\[\d+\]|\.[\w-]+)*(?=: )")
_STEP = re.compile(r"\[(\d+)\]|([\w-]+)")


def mistakes(error: ConfigurationError, config: Config) -> Iterator[Finding]:
    """Yield each line of what was raised, with the line of the file that it is about."""
    for told in str(error).splitlines():
        entry = _ENTRY.match(told)
        elsewhere = None if told.startswith(ENVIRONMENT) else config.place(*OURS)
        yield Finding("error", shown(told), _at(entry[0], config) if entry else elsewhere)


def _at(entry: str, config: Config) -> Place:
    steps: list[str | int] = [int(index) if index else name for index, name in _STEP.findall(entry)]
    return config.place(*(OURS[:1] if steps[0] == SECTION else ()), *steps)


def of_place(config: Config) -> Iterator[Finding]:
    """Tell of sections that nobody reads, because they stand elsewhere."""
    if SECTION in config.data:
        told = f"{SECTION}: stands at the top of the file; allowed: below litellm_settings"
        yield Finding("error", told, config.place(SECTION))
    for name in ("general_settings", "router_settings"):
        if SECTION in table(config.data.get(name)):
            told = f"{name}.{SECTION}: is not read there; allowed: below litellm_settings"
            yield Finding("error", told, config.place(name, SECTION))
    for place, entry in enumerate(_deployments(config)):
        for path in ((), ("litellm_params",)):
            if SECTION in table(table(entry).get(path[0]) if path else entry):
                told = f"{'.'.join((f'model_list[{place}]', *path))}.{SECTION}: is not read there"
                at = config.place("model_list", place, *path, SECTION)
                yield Finding("error", f"{told}; allowed: in model_info", at)


def of_callback(config: Config) -> Iterator[Finding]:
    """Tell where LiteLLM is not told to load the plugin."""
    said = table(config.data.get("litellm_settings")).get("callbacks")
    names = [name for name in (said if isinstance(said, list) else [said]) if isinstance(name, str)]
    if CALLBACK in names or any(_is_shim(name, config) for name in names):
        return
    place = config.place("litellm_settings", "callbacks")
    for name in names:
        if name.partition(".")[0] == PACKAGE:
            yield Finding("error", f"callbacks: unknown: {shown(name)}; allowed: {CALLBACK}", place)
            return
    told = f"callbacks: the plugin is not named, so nothing is limited; allowed: {CALLBACK}"
    yield Finding("error", f"litellm_settings.{told}", place)


def _is_shim(name: str, config: Config) -> bool:
    """Whether a callback is a file beside the configuration that hands over the plugin."""
    module, _, attribute = name.rpartition(".")
    try:
        file = config.path.parent.joinpath(*module.split(".")).with_suffix(".py")
        return bool(module and attribute) and PACKAGE in file.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False


def of_deployments(config: Config) -> Iterator[Finding]:
    """Tell what is wrong in the deployments' `model_info`."""
    for place, entry in enumerate(_deployments(config)):
        try:
            check_deployments([entry])
        except ConfigurationError as error:
            told = str(error).replace("model_list[0]", f"model_list[{place}]")
            yield from mistakes(ConfigurationError(told), config)


def _deployments(config: Config) -> list[Any]:
    entries = config.data.get("model_list")
    return entries if isinstance(entries, list) else []


def of_store(
    settings: Settings, config: Config, environment: Mapping[str, str], workers: int
) -> Iterator[Finding]:
    """Tell of a store that cannot be, or that divides what should be one count."""
    place = config.place(*OURS, "store")
    if settings.store == "redis" and not names_redis(config.data, environment):
        yield Finding("error", NO_REDIS, place)
    if settings.store == "memory" and workers > 1:
        told = (
            f"{SECTION}.store: memory, but {workers} workers: each counts alone, and each limit holds once "
            "for every worker; auto, host or redis counts them together"
        )
        yield Finding("warning", told, place)
    if settings.host_path is not None and settings.store in {"memory", "redis"}:
        told = f"{SECTION}.host_path: not used with store: {settings.store}"
        yield Finding("warning", told, config.place(*OURS, "host_path"))
    if settings.take_over_key_limit and settings.mode == "observe":
        told = f"{SECTION}.take_over_key_limit: not with mode: observe; LiteLLM goes on enforcing that field"
        yield Finding("warning", told, config.place(*OURS, "take_over_key_limit"))


def of_limits(settings: Settings, config: Config, environment: Mapping[str, str]) -> Iterator[Finding]:
    """Tell of limits that hardly do what they were written for."""
    models = known_models(config.data, environment)
    for number in range(len(settings.limits)):
        yield from _OneLimit(settings, number, config, models).findings()


class _OneLimit:
    """One of the operator's limits, looked at beside the others."""

    def __init__(self, settings: Settings, number: int, config: Config, models: KnownModels) -> None:
        self._settings = settings
        self._number = number
        self._limit = settings.limits[number]
        self._config = config
        self._models = models

    def findings(self) -> Iterator[Finding]:
        if self._limit.max_parallel_requests is None:
            yield self._finding("null sets no limit, so nothing is counted", "max_parallel_requests")
            return
        yield from self._shadowed()
        yield from self._unmet()
        yield from self._unhashed()
        wide = never_full(self._number, self._settings)
        if wide is not None:
            lower = f"'{wide.name}' counts the same requests, and refuses beyond {wide.max_parallel_requests}"
            told = f"never full: {lower}"
            yield self._finding(told, "max_parallel_requests")

    def _lists(self) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
        """Yield each list of globs with its path in the limit."""
        yield self._limit.models, ("models",)
        for party, patterns in self._limit.where.items():
            yield patterns, ("where", party)

    def _shadowed(self) -> Iterator[Finding]:
        for patterns, path in self._lists():
            for place, wide in shadowed(patterns):
                told = f"'{patterns[place]}' adds nothing: '{wide}' in the same list matches it"
                yield self._finding(told, *path, place)

    def _unmet(self) -> Iterator[Finding]:
        lists = [pair for pair in self._lists() if pair[0] and pair[1][-1] in {"models", "model"}]
        for patterns, path in lists:
            unmet = [place for place, one in enumerate(patterns) if not self._models.may_meet((one,))]
            if len(unmet) == len(patterns):
                yield self._finding(
                    "never met: matches no model, alias or wildcard of this configuration", *path
                )
                return
            for place in unmet:
                told = f"'{patterns[place]}' matches no model, alias or wildcard of this configuration"
                yield self._finding(told, *path, place)
        if len(lists) > 1 and not self._models.may_meet(*(patterns for patterns, _ in lists)):
            yield self._finding("never met: no model is of both models and where.model", "models")

    def _unhashed(self) -> Iterator[Finding]:
        for place, pattern in enumerate(self._limit.where.get("key", ())):
            if pattern.startswith("sk-"):
                told = "a key is known by its hash or its alias, not by itself"
                yield self._finding(told, "where", "key", place)

    def _finding(
        self, told: str, *path: str | int, level: Literal["error", "warning"] = "warning"
    ) -> Finding:
        entry = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
        place = self._config.place(*OURS, "limits", self._number, *path)
        return Finding(level, shown(f"{SECTION}.limits[{self._number}]{entry}: {told}"), place)


def told_workers(environment: Mapping[str, Any], flag: int | None) -> int:
    """Return how many workers a proxy would have that is started like this."""
    variables = (environment.get("NUM_WORKERS", ""), environment.get("WEB_CONCURRENCY", ""))
    return max([1, flag or 1, *(int(one[:9]) for one in variables if one.isascii() and one.isdecimal())])
