"""A configuration, checked and explained."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from litellm_parallel_limits.cli.checks import Explained, Finding, Report, rules
from litellm_parallel_limits.cli.checks.config_file import Config, ConfigFileError, read
from litellm_parallel_limits.cli.checks.secrets import shown
from litellm_parallel_limits.cli.checks.words import of_deployment, sentence
from litellm_parallel_limits.cli.text import counted
from litellm_parallel_limits.errors import ConfigurationError
from litellm_parallel_limits.model_info import SECTION, said
from litellm_parallel_limits.redis_named import names_redis
from litellm_parallel_limits.settings import DeploymentSettings, Settings
from litellm_parallel_limits.settings import read as read_settings
from litellm_parallel_limits.tables import table


def check(path: Path, environment: Mapping[str, str], workers: int | None) -> Report:
    """Return what LiteLLM with this configuration, environment and number of workers would limit."""
    try:
        config = read(path)
    except ConfigFileError as error:
        return Report(findings=(error.finding,))
    findings = [*config.findings, *rules.of_place(config), *rules.of_callback(config)]
    deployments = list(rules.of_deployments(config))
    try:
        settings = read_settings(table(config.data.get("litellm_settings")).get(SECTION), environment)
    except ConfigurationError as error:
        return Report(findings=_in_order([*findings, *rules.mistakes(error, config), *deployments]))
    if not settings.enabled:
        return Report(notes=("Switched off: nothing is limited.",))
    number = rules.told_workers(environment, workers)
    findings += rules.of_store(settings, config, environment, number)
    findings += [*rules.of_limits(settings, config, environment), *deployments]
    limits = (*_limits(settings, config), *([] if deployments else _deployments(config)))
    return Report(limits, _in_order(findings), tuple(_notes(settings, config, environment, number)))


def _in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return each finding once, as one meets them who reads the files."""
    return tuple(sorted(dict.fromkeys(findings), key=_position))


def _position(finding: Finding) -> tuple[str, int]:
    return ("", 0) if finding.place is None else (finding.place.file, finding.place.line)


def _limits(settings: Settings, config: Config) -> Iterator[Explained]:
    for number, limit in enumerate(settings.limits):
        place = config.place(*rules.OURS, "limits", number)
        yield Explained(limit.name, shown(sentence(limit, settings)), place)


def _deployments(config: Config) -> Iterator[Explained]:
    entries = config.data.get("model_list")
    for number, entry in enumerate(entries if isinstance(entries, list) else []):
        if said(table(entry)):
            settings = DeploymentSettings.model_validate(said(entry))
            words = of_deployment(settings, str(entry.get("model_name")))
            place = config.place("model_list", number, "model_info", SECTION)
            yield Explained(f"model_list[{number}]", shown(words), place)


def _notes(settings: Settings, config: Config, environment: Mapping[str, str], workers: int) -> Iterator[str]:
    hold = "are only noted" if settings.mode == "observe" else "hold as well"
    wait = settings.wait
    waits = f"; requests wait for them up to {wait.max_seconds:g} s" if wait and wait.max_seconds else ""
    yield f"The numbers in LiteLLM's records of keys, users, teams and so on {hold}{waits}."
    store = settings.store
    if store in {"auto", "redis"} and names_redis(config.data, environment):
        yield "Counted in LiteLLM's Redis, over all workers and proxies."
    elif store == "host" or (store == "auto" and workers > 1):
        yield f"Counted in a file, over the {counted(workers, 'worker')} of one proxy."
    elif store in {"auto", "memory"}:
        yield "Counted in the memory of each worker."
