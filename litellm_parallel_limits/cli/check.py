"""The command `check`: what a configuration limits, and what is wrong with it."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import click

from litellm_parallel_limits.cli.checks import Finding, Place, Report
from litellm_parallel_limits.cli.checks.reports import check
from litellm_parallel_limits.cli.checks.secrets import shown
from litellm_parallel_limits.cli.exits import NO
from litellm_parallel_limits.cli.text import counted

COLOURS = {"error": "red", "warning": "yellow"}


@click.command("check")
@click.argument("config", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--workers", type=click.IntRange(min=1), help="How many the proxy will have.")
@click.option("--strict", is_flag=True, help="End with 1 for a warning, too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(*, config: Path, workers: int | None, strict: bool, as_json: bool) -> None:
    """Read LiteLLM's CONFIG with all that it includes, say what it limits, and find mistakes.

    As the proxy would in this environment; needs no proxy. Ends with 1 if there is an error.
    """
    report = check(config, os.environ, workers)
    errors, warnings = report.count("error"), report.count("warning")
    if as_json:
        click.echo(json.dumps({"errors": errors, "warnings": warnings, **asdict(report)}, indent=2))
    else:
        _show(report, f"{counted(errors, 'error')}, {counted(warnings, 'warning')}")
    if errors or (strict and warnings):
        raise SystemExit(NO)


def _show(report: Report, sums: str) -> None:
    for limit in report.limits:
        click.echo(f"{_where(limit.place)}{click.style(limit.name, bold=True)}: {limit.words}")
    for note in report.notes:
        click.echo(note)
    if report.findings and (report.limits or report.notes):
        click.echo()
    for finding in report.findings:
        click.echo(_line(finding))
    click.echo(sums if report.findings else "No mistakes found.")


def _line(finding: Finding) -> str:
    level = click.style(finding.level, fg=COLOURS[finding.level], bold=True)
    return f"{_where(finding.place)}{level}: {finding.told}"


def _where(place: Place | None) -> str:
    return "" if place is None else f"{shown(place.file)}:{place.line}: "
