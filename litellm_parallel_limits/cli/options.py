"""Which proxy a command asks, and with which key."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import closing
from functools import wraps
from typing import Any
from urllib.parse import urlsplit

import click

from litellm_parallel_limits.cli.proxy import Proxy

URL_VARIABLE, KEY_VARIABLE = "LITELLM_PROXY_URL", "LITELLM_PROXY_API_KEY"
"""LiteLLM's own command line reads the same."""

MASTER_KEY_VARIABLE = "LITELLM_MASTER_KEY"
DEFAULT_URL = "http://localhost:4000"

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def asks_proxy(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options `--url` and `--key`, and call it with the `proxy` they name."""

    @click.option(
        "--url",
        envvar=URL_VARIABLE,
        show_envvar=True,
        default=DEFAULT_URL,
        callback=_url,
        help="The proxy's.",
    )
    @click.option(
        "--key",
        envvar=[KEY_VARIABLE, MASTER_KEY_VARIABLE],
        show_envvar=True,
        callback=_key,
        help="An API key. Others on the machine can see a command's options: rather set the variable. "
        "On a terminal it is asked for if it is missing.",
    )
    @wraps(command)
    def asking(*, url: str, key: str, **options: Any) -> None:
        with closing(Proxy(url, key)) as proxy:
            command(proxy=proxy, **options)

    return asking


def _url(_: click.Context, __: click.Parameter, url: str) -> str:
    try:
        parts = urlsplit(url)
        is_fine = parts.scheme in {"http", "https"} and bool(parts.hostname) and url.isprintable()
        has_secret, _port = "@" in parts.netloc, parts.port
    except ValueError:
        is_fine, has_secret = False, False
    if has_secret:
        raise click.BadParameter("has a user or password in it; give the API key by itself")
    if not is_fine or parts.query or parts.fragment:
        raise click.BadParameter("is none of a proxy; such as http://localhost:4000")
    return url


def _key(context: click.Context, _: click.Parameter, key: str | None) -> str:
    if context.resilient_parsing:
        return ""
    key = (key or _asked_for()).strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise click.BadParameter("is none of a proxy: it is empty, or has characters that no key has")
    return key


def _asked_for() -> str:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise click.UsageError(f"There is no API key: set {KEY_VARIABLE}.")
    key: str = click.prompt("API key", hide_input=True, err=True)
    return key
