"""`python -m tests.benchmarks`: what it costs to be limited, in turns on one machine, with the targets."""

from __future__ import annotations

import click
from rich.console import Console

from tests.benchmarks.costs import Costs, table


@click.command()
@click.option("--rounds", default=5, show_default=True, help="How often everything is measured.")
def main(*, rounds: int) -> None:
    """Measure, and print the table."""
    with Costs.begin() as costs:
        costs.round()  # what a proxy does only once is done after that
        found = [costs.round() for _ in range(rounds)]
    Console(width=150).print(table(found))


if __name__ == "__main__":
    main()
