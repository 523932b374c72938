"""The command `demo`: a burst on the sample configuration, and what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from litellm_parallel_limits.cli.burst import BURST, Outcome, burst
from litellm_parallel_limits.cli.exits import NO
from litellm_parallel_limits.cli.options import as_json
from litellm_parallel_limits.cli.printing import console, show_json
from litellm_parallel_limits.cli.sample_proxy import KEY, sample_proxy
from litellm_parallel_limits.cli.text import plain

STARTING = "Starting a LiteLLM proxy on the sample configuration …"


@click.command("demo")
@click.option("--log", is_flag=True, help="Show the proxy's own log as well.")
@as_json
def command(*, log: bool, as_json: bool) -> None:
    """Start a proxy on the sample configuration, send it a burst, and show who was admitted.

    Needs no provider key, no Redis and no database. Ends with 1 if something is left in flight.
    """
    errors = console(error=True)
    if not as_json and not errors.is_terminal:
        click.echo(STARTING)
    outcomes, left = _run(errors, show_log=log)
    admitted = sum(outcome.admitted for outcome in outcomes)
    refused = len(outcomes) - admitted
    if as_json:
        sums = {"admitted": admitted, "refused": refused, "left_in_flight": left}
        show_json({**sums, "requests": [asdict(outcome) for outcome in outcomes]})
    else:
        console().print(table(outcomes))
        click.echo(f"{admitted} admitted, {refused} refused, {left} left in flight.")
    if left or not admitted or not refused:
        raise SystemExit(NO)


def _run(errors: Console, *, show_log: bool) -> tuple[Sequence[Outcome], int]:
    """Start the proxy and send the burst; show how far it is, where somebody may look on."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TimeElapsedColumn(),
    )
    with Progress(
        *columns, console=errors, transient=True, disable=show_log or not errors.is_terminal
    ) as progress:
        task = progress.add_task(STARTING, total=None)
        with sample_proxy(show_log=show_log) as url:
            progress.reset(task, description=f"{len(BURST)} requests at once", total=len(BURST))
            return asyncio.run(burst(url, KEY, lambda _: progress.advance(task)))


def table(outcomes: Sequence[Outcome]) -> Table:
    """Return what became of each request."""
    shown = Table("model", "customer", "", "", title="One burst, all at once")
    for outcome in outcomes:
        verdict = Text("admitted", "green") if outcome.admitted else Text("refused", "red")
        shown.add_row(Text(outcome.model), Text(outcome.customer), verdict, Text(_told(outcome)))
    return shown


def _told(outcome: Outcome) -> str:
    if not outcome.admitted:
        return plain(outcome.message)
    waited = f", waited {outcome.waited:.1f} s" if outcome.waited else ""
    return f"answered after {outcome.seconds:.1f} s{waited}"
