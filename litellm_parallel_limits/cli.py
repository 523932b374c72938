"""The command line."""

from __future__ import annotations

import click


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="litellm-parallel-limits")
def main() -> None:
    """Limit requests in flight at the LiteLLM proxy."""


@main.command()
@click.option("--log", is_flag=True, help="Show the proxy's own log as well.")
def demo(*, log: bool) -> None:
    """Start a proxy on the sample configuration, send it a burst, and show who was admitted.

    Needs no provider key, no Redis and no database. Ends with 1 if something is left in flight.
    """
    from litellm_parallel_limits.demo import run  # noqa: PLC0415 (needs the proxy beside it)

    raise SystemExit(run(show_log=log))
