"""What the reference says of the commands is what they are."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import click
import pytest

from litellm_parallel_limits import cli
from tests.cli.golden import FOLDER

REFERENCE = (Path(__file__).parents[2] / "docs" / "reference.md").read_text(encoding="utf-8")
[SECTION] = re.findall(r"^## Commands$(.*?)^## ", REFERENCE, re.MULTILINE | re.DOTALL)
EVERYWHERE = {"--json", "--url", "--key"}


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_is_in_the_reference(name: str) -> None:
    """There is a row for each command, with its own options, and a text for those that many have."""
    [row] = re.findall(rf"^\| `({name}\b.*?)(?<!\\)\|", SECTION, re.MULTILINE)
    command: click.Command = import_module(f"{cli.__name__}.{name}").command
    options = {text for option in command.params for text in option.opts if text.startswith("--")}
    assert set(re.findall(r"--[a-z-]+", row)) == options - EVERYWHERE
    assert all(f"`{option}`" in SECTION for option in EVERYWHERE)


def test_the_example_is_what_check_prints() -> None:
    """The reference shows what `check` says of a configuration, word for word."""
    assert (FOLDER / "check" / "config.txt").read_text(encoding="utf-8") in SECTION
