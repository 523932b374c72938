"""The command `explain`: which limits a request meets, and where their numbers come from."""

from __future__ import annotations

import hashlib
import re
import sys

import click

from litellm_parallel_limits.cli.options import as_json, asks_proxy
from litellm_parallel_limits.cli.printing import show, show_json
from litellm_parallel_limits.cli.proxy import Proxy
from litellm_parallel_limits.cli.views import explanation_view

HASH = re.compile("[0-9a-f]{64}")

ASK = "-"
"""In the place of a key: ask for it, or read it where nobody can be asked."""


@click.command("explain")
@asks_proxy
@click.option("--model", required=True, help="As a client would name it.")
@click.option(
    "--of-key",
    metavar="KEY",
    help="Whose request: a key's hash, as LiteLLM's UI and /key/info show it. A key itself is hashed here, "
    "and sent to nobody, but others on the machine can see a command's options: give - to be asked for it.",
)
@click.option("--user", help="Whose request: a user's id.")
@click.option("--team", help="Whose request: a team's id.")
@click.option("--end-user", help="Whose request: a customer's id.")
@click.option("--tag", multiple=True, help="A tag of the request; may be given several times.")
@as_json
def command(
    *,
    proxy: Proxy,
    model: str,
    of_key: str | None,
    user: str | None,
    team: str | None,
    end_user: str | None,
    tag: tuple[str, ...],
    as_json: bool,
) -> None:
    """Show which limits a request meets, with the source of each number and what it overrides; and which not.

    For proxy admins.
    """
    parties = {"key": _hash(of_key), "user": user, "team": team, "end_user": end_user}
    document = proxy.get("explain", model=model, tag=list(tag), **parties)
    view = explanation_view(document)
    if as_json:
        show_json(document)
    else:
        show(view)


def _hash(key: str | None) -> str | None:
    """Return what LiteLLM knows a key by."""
    if key is None:
        return None
    given = (_asked_for() if key == ASK else key).strip()
    if not given:
        raise click.BadParameter("is empty", param_hint="--of-key")
    # surrogatepass: a terminal may hand over bytes that are no text, which then hash to no key there is
    return (
        given if HASH.fullmatch(given) else hashlib.sha256(given.encode(errors="surrogatepass")).hexdigest()
    )


def _asked_for() -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline()
    key: str = click.prompt("Key to be explained", hide_input=True, err=True)
    return key
