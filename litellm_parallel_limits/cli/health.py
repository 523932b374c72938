"""The command `health`: how the limiter is."""

from __future__ import annotations

import click

from litellm_parallel_limits.cli import documents
from litellm_parallel_limits.cli.exits import NO
from litellm_parallel_limits.cli.options import as_json, asks_proxy
from litellm_parallel_limits.cli.printing import show, show_json
from litellm_parallel_limits.cli.proxy import Proxy
from litellm_parallel_limits.cli.views import health_view


@click.command("health")
@asks_proxy
@as_json
def command(*, proxy: Proxy, as_json: bool) -> None:
    """Show how the limiter of the worker is that answers; end with 1 if its store is out."""
    document = proxy.get("health")
    state = documents.health(document)
    if as_json:
        show_json(document)
    else:
        show(health_view(document))
    if state.status != "healthy":
        raise SystemExit(NO)
