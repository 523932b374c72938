"""The command `release`: slots are freed by hand."""

from __future__ import annotations

import click

from litellm_parallel_limits.cli.options import as_json, asks_proxy
from litellm_parallel_limits.cli.printing import show_json
from litellm_parallel_limits.cli.proxy import Proxy
from litellm_parallel_limits.cli.text import counted


@click.command("release")
@asks_proxy
@click.option("--lease", metavar="ID", help="One request, in all of its limits.")
@click.option("--scope", metavar="ID", help="Everything in a scope; with --lease only that request there.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json
def command(*, proxy: Proxy, lease: str | None, scope: str | None, yes: bool, as_json: bool) -> None:
    """Free slots by hand; `status --holders` tells the ids. For proxy admins.

    Who held them goes on, and is no longer counted there. Ends with 1 if nothing of that name was in flight.
    """
    meant = {name: value for name, value in (("lease", lease), ("scope", scope)) if value}
    if not meant:
        raise click.UsageError("Name what to release: --lease ID, --scope ID, or both.")
    if not yes:
        told = " of ".join(f"{name} {value}" for name, value in meant.items())
        click.confirm(f"Release {told}? It may still be at the provider.", abort=True, err=True)
    document = proxy.post("release", meant)
    if as_json:
        show_json(document)
    else:
        click.echo(f"{counted(int(document.get('released', 0)), 'slot')} released.")
