"""The command line."""

from __future__ import annotations

from importlib import import_module

import click

from litellm_parallel_limits.cli.exits import NotAnsweredError

COMMANDS = ("check", "status", "top", "release", "health", "explain", "demo")
"""Each a module of this package, imported when it is asked for: none needs LiteLLM, `check` no HTTP."""

PACKAGE = "litellm-parallel-limits"


class _Commands(click.Group):
    """The commands, of which some need what comes with LiteLLM's proxy."""

    def list_commands(self, _: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        try:
            found: click.Command = import_module(f"{__name__}.{cmd_name}").command
        except ModuleNotFoundError as error:
            return _lacking(cmd_name, str(error.name))
        return found


def _lacking(name: str, module: str) -> click.Command:
    """Return a command that says which module it lacks, whatever it is told."""

    @click.command(
        name, context_settings={"ignore_unknown_options": True}, help=f"Needs the package {module}."
    )
    @click.argument("_", nargs=-1)
    def command(_: tuple[str, ...]) -> None:
        raise NotAnsweredError(f"'{name}' needs the package {module}: pip install '{PACKAGE}[proxy]'")

    return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name=PACKAGE)
def main() -> None:
    """Limit requests in flight at the LiteLLM proxy.

    Ends with 0 if all is well, 1 if the answer is no (or mistakes were found), 2 for a command that cannot
    be meant, 3 if the proxy was not reached or refused the key.
    """
