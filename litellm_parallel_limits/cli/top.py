"""The command `top`: what is in flight, as it happens."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, get_args

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from litellm_parallel_limits.cli.exits import KeyRefusedError, NotAnsweredError
from litellm_parallel_limits.cli.keyboard import Pause, pauses
from litellm_parallel_limits.cli.options import asks_proxy
from litellm_parallel_limits.cli.printing import console
from litellm_parallel_limits.cli.proxy import Proxy
from litellm_parallel_limits.cli.views import status_view
from litellm_parallel_limits.status import Sort

HISTORY_SECONDS = 5.0
"""Between two looks at what was: the proxy's steps are as long."""

OTHER_LINES = 9
"""Of a screen, beside the scopes: head, sums, lines of what was, and room for a message."""

SORTS = click.Choice(get_args(Sort))


@click.command("top")
@asks_proxy
@click.option("--limit", metavar="NAME", help="Only the limit of this name.")
@click.option("--sort", type=SORTS, default="utilization", show_default=True, help="What comes first.")
@click.option(
    "--interval",
    type=click.FloatRange(0.2, 3600),
    default=1.0,
    show_default=True,
    help="Seconds between looks.",
)
def command(*, proxy: Proxy, limit: str | None, sort: str, interval: float) -> None:
    """Show what is in flight as it happens, until q or Ctrl-C. A proxy that is away is asked again."""
    screen = console()
    if not screen.is_terminal:
        raise click.UsageError("top needs a terminal; status prints what is in flight once")
    picture = Picture(proxy, limit=limit, sort=sort)
    with pauses() as pause:
        watch(picture, screen, pause, interval)


def watch(picture: Picture, screen: Console, pause: Pause, interval: float) -> None:
    """Show one picture after the other until somebody leaves."""
    with suppress(KeyboardInterrupt):
        live = Live(picture.next(screen.height), console=screen, screen=True, auto_refresh=False)
        try:  # not `with live`: Ctrl-C while it shows its first picture would leave us on its screen
            live.start(refresh=True)
            while not pause(interval):
                live.update(picture.next(screen.height), refresh=True)
        finally:
            live.stop()


class Picture:
    """What is in flight, or was when the proxy last answered."""

    def __init__(
        self, proxy: Proxy, *, limit: str | None, sort: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._proxy = proxy
        self._view: dict[str, Any] = {"limit": limit, "sort": sort}
        self._clock = clock
        self._status: Any = None
        self._history: Any = None
        self._history_at = -HISTORY_SECONDS
        self._sees_history = True
        self._away_since: float | None = None
        self._shown: RenderableType = Text()

    def next(self, lines: int) -> RenderableType:
        """Return a picture for a screen of so many lines. Raises KeyRefusedError if no answer ever came."""
        told = Text()
        try:
            self._look(max(1, min(1000, lines - OTHER_LINES)))
            self._away_since = None
        except (NotAnsweredError, click.ClickException) as error:
            if isinstance(error, KeyRefusedError) and self._status is None:
                raise
            told = self._away(error)
        head = Text.assemble(("litellm-parallel-limits", "bold"), f"  {self._proxy.url}  ", ("q ends", "dim"))
        return Group(head, told, self._shown) if told else Group(head, Text(), self._shown)

    def _look(self, page_size: int) -> None:
        status = self._proxy.get("status", page_size=page_size, **self._view)
        self._look_back()
        self._shown = status_view(status, self._history)
        self._status = status

    def _look_back(self) -> None:
        if not self._sees_history or self._clock() - self._history_at < HISTORY_SECONDS:
            return
        self._history_at = self._clock()
        try:
            self._history = self._proxy.get("history")
        except KeyRefusedError:
            self._sees_history = False  # only admins do
        except NotAnsweredError:
            self._history = None

    def _away(self, error: click.ClickException) -> Text:
        now = self._clock()
        self._away_since = now if self._away_since is None else self._away_since
        return Text(f"For {now - self._away_since:.0f} s: {error.message}", "bold red")
