"""Where commands print."""

from __future__ import annotations

import json
import os
from typing import Any

import click
from rich.console import Console, RenderableType

PIPED_CELLS = 120
"""Width where nobody says how wide the terminal is: enough for a log, or a mail."""


def console(*, error: bool = False) -> Console:
    """Return the terminal, on which texts are texts: no markup, no emoji codes, nothing highlighted."""
    plain = Console(stderr=error, markup=False, emoji=False, highlight=False)
    if not plain.is_terminal and "COLUMNS" not in os.environ:
        plain.width = PIPED_CELLS
    return plain


def show(view: RenderableType) -> None:
    """Print what is for people."""
    console().print(view)


def show_json(document: Any) -> None:
    """Print what is for programs: all in ASCII, so that no text of strangers reaches the terminal."""
    click.echo(json.dumps(document, indent=2))
