"""The command `status`: what is in flight now."""

from __future__ import annotations

from typing import get_args

import click

from litellm_parallel_limits.cli.options import as_json, asks_proxy
from litellm_parallel_limits.cli.pages import whole_status
from litellm_parallel_limits.cli.printing import show, show_json
from litellm_parallel_limits.cli.proxy import Proxy
from litellm_parallel_limits.cli.views import status_view
from litellm_parallel_limits.status import Sort

SCOPES = 50
"""Shown unless all are asked for: more than a screen is read by nobody, or by a program."""

SORTS = click.Choice(get_args(Sort))


@click.command("status")
@asks_proxy
@click.option("--limit", metavar="NAME", help="Only the limit of this name.")
@click.option("--sort", type=SORTS, default="utilization", show_default=True, help="What comes first.")
@click.option("--all", "everything", is_flag=True, help=f"All scopes, not only the first {SCOPES}.")
@click.option("--holders", is_flag=True, help="Also who holds slots, with the ids that release takes.")
@as_json
def command(
    *, proxy: Proxy, limit: str | None, sort: str, everything: bool, holders: bool, as_json: bool
) -> None:
    """Show what is in flight, waiting and refused, limit by limit.

    Over all workers and proxies; a key that is no admin's sees its own.
    """
    if everything:
        document = whole_status(proxy, limit=limit, sort=sort)
    else:
        document = proxy.get("status", limit=limit, sort=sort, page_size=SCOPES)
    view = status_view(document, holders=holders)
    if as_json:
        show_json(document)
    else:
        show(view)
