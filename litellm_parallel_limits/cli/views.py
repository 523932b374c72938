"""What the proxy answers, as one sees it on a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from litellm_parallel_limits.cli import documents
from litellm_parallel_limits.cli.bars import bar, sparkline
from litellm_parallel_limits.cli.text import counted
from litellm_parallel_limits.history import Past
from litellm_parallel_limits.status import ScopeStatus, Status

ID_CELLS = 22
"""Of an id with what it is of: who is to release it needs all of it."""

NEARLY_FULL = 0.75
"""Of a limit, from which on a bar is yellow. Ours: one more burst may fill it."""


def status_view(document: object, history: object = None, *, holders: bool = False) -> RenderableType:
    """Return what a status says: what is in flight of which limit, beside what was in the last minutes.

    With `holders` also who holds it, by the ids that `release` takes. Raises NotAnsweredError for what is no
    such document.
    """
    status = documents.status(document)
    parts: list[RenderableType] = [_summary(status)]
    if status.degraded:
        parts.append(Text("The store does not answer: these are the numbers of one worker.", "bold yellow"))
    if history is not None:
        parts.append(_lines(documents.past(history)))
    parts.append(Text())
    parts.append(_scopes(status, holders=holders) if status.scopes else Text("Nothing is in flight."))
    if status.total > len(status.scopes) > 0:
        parts.append(Text(f"{len(status.scopes)} of {status.total} scopes are shown.", "dim"))
    return Group(*parts)


def _summary(status: Status) -> Text:
    refused = f"{status.refused_lately} refused in the last minute"
    return Text.assemble(
        (f"{status.in_flight} in flight", "bold"),
        "   ",
        (f"{status.waiting} waiting", "yellow" if status.waiting else "dim"),
        "   ",
        (refused, "red" if status.refused_lately else "dim"),
        "   ",
        (f"store {status.store}", "dim"),
    )


def _lines(past: Past) -> Table:
    """Return lines of what was in flight and refused."""
    time = f"in {round(len(past.in_flight) * past.step_seconds / 60)} min"
    most, sums = f"at most {max(past.in_flight, default=0):g} {time}", f"{sum(past.refused)} {time}"
    lines = Table.grid(padding=(0, 2, 0, 0), expand=True)
    lines.add_column(no_wrap=True)
    lines.add_column(ratio=1, no_wrap=True)
    lines.add_column(no_wrap=True)
    for name, numbers, style, told in (
        ("in flight", past.in_flight, "cyan", most),
        ("refused", past.refused, "red", sums),
    ):
        lines.add_row(Text(name), _Line(numbers, style), Text(told, "dim"))
    return lines


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of numbers as wide as there is room."""

    numbers: Sequence[float]
    style: str

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(sparkline(self.numbers, options.max_width), self.style)


def _scopes(status: Status, *, holders: bool) -> Table:
    table = _table()
    table.add_column("limit", ratio=3, no_wrap=True, overflow="ellipsis")
    ids = ID_CELLS if holders else None
    table.add_column("counted for", ratio=4, width=ids, no_wrap=True, overflow="ellipsis")
    table.add_column("in use", ratio=3, no_wrap=True, overflow="ellipsis")
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("waiting", justify="right", no_wrap=True)
    table.add_column("refused", justify="right", no_wrap=True)
    for scope in status.scopes:
        style = _style(scope)
        table.add_row(
            Text(scope.name),
            _parties(scope.scope),
            _Bar(scope.utilization or 0, f"{style} on grey23"),
            Text(f"{scope.in_flight} of {'?' if scope.limit is None else scope.limit}", style),
            _number(scope.waiting, "yellow"),
            _number(scope.refused_lately, "red"),
        )
        for row in _holders(scope) if holders else ():
            table.add_row(*row)
    return table


@dataclass(frozen=True, slots=True)
class _Bar:
    """A bar as wide as there is room."""

    share: float
    style: str

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(bar(self.share, options.max_width), self.style)


def _style(scope: ScopeStatus) -> str:
    share = scope.utilization or 0
    if share >= 1:
        return "red"
    return "yellow" if share >= NEARLY_FULL else "green"


def _holders(scope: ScopeStatus) -> Iterator[tuple[Text, ...]]:
    yield Text(), Text(f"scope {scope.id}", "dim")
    for holder in scope.holders:
        since = Text(f"{holder.age_seconds:.1f} s in {holder.worker}", "dim")
        yield Text(f"  {holder.model}", "dim"), Text(f"lease {holder.lease}", "dim"), since


def _parties(parties: Mapping[str, str]) -> Text:
    said = ", ".join(f"{dimension} {name}" for dimension, name in parties.items())
    return Text(said) if said else Text("everybody", "dim")


def _number(number: int, style: str) -> Text:
    return Text(str(number), style if number else "dim")


def health_view(document: object) -> RenderableType:
    """Return how the worker is that answered. Raises NotAnsweredError for what is no such document."""
    health = documents.health(document)
    rows = {
        "status": Text(health.status, "green" if health.status == "healthy" else "bold yellow"),
        "degraded for": _seconds(health.degraded_seconds),
        "store": Text(health.store),
        "store answered in": Text("not" if health.store_ms is None else f"{health.store_ms:g} ms"),
        "workers": Text(str(health.workers)),
        "this worker": Text(health.worker),
        "in flight here": Text(str(health.in_flight)),
        "waiting here": Text(str(health.waiting)),
        "renewed leases": _seconds(health.last_heartbeat_seconds, " ago"),
        "version": Text(health.version),
    }
    table = Table.grid(padding=(0, 2))
    for name, value in rows.items():
        table.add_row(Text(name, "dim"), value)
    return table


def _seconds(seconds: float | None, after: str = "") -> Text:
    return Text("-" if seconds is None else f"{seconds:.1f} s{after}")


def explanation_view(document: object) -> RenderableType:
    """Return which limits a request meets, and why. Raises NotAnsweredError for what is no such document."""
    explanation = documents.explanation(document)
    of = _parties(explanation.identities) if explanation.identities else Text("nobody in particular")
    model = Text(f" for {explanation.model}" if explanation.model else "")
    head = Text.assemble("A request", model, " of ", of)
    limits = explanation.limits
    parts: list[RenderableType] = [
        Text.assemble(head, f" meets {counted(len(limits), 'limit')}.", style="bold")
    ]
    table = _table()
    table.add_column("limit", no_wrap=True, overflow="ellipsis", ratio=2)
    table.add_column("counted for", ratio=2, overflow="fold")
    table.add_column("number", justify="right", no_wrap=True)
    table.add_column("from", ratio=3, overflow="fold")
    for limit in limits:
        observed = " (only observed)" if limit.mode == "observe" else ""
        source = Text(limit.source + observed)
        table.add_row(Text(limit.name), _parties(limit.scope), Text(str(limit.limit), "bold"), source)
        for other in limit.overridden:
            table.add_row("", "", Text(str(other.limit), "dim"), Text(f"{other.source} (overridden)", "dim"))
        for invalid in limit.invalid:
            table.add_row("", "", Text("?", "yellow"), Text(f"{invalid} (no number, ignored)", "yellow"))
        if limit.wait is not None:
            wait = limit.wait
            turns = f", by turns of {wait.fair_by}" if wait.fair_by else ""
            waits = f"waits up to {wait.max_seconds:g} s, {wait.max_waiting} waiting at most{turns}"
            table.add_row("", "", "", Text(waits, "dim"))
    if limits:
        parts += [Text(), table]
    if explanation.not_met:
        others = Table.grid(padding=(0, 2))
        for one in explanation.not_met:
            others.add_row(Text(one.name), Text(one.why, "dim", overflow="fold"))
        parts += [Text(), Text("Limits of the configuration that it does not meet:", "bold"), others]
    if explanation.unread:
        parties = " and ".join(explanation.unread)
        told = f"LiteLLM has no record of this {parties}: only limits by name are known."
        parts += [Text(), Text(told, "yellow")]
    return Group(*parts)


def _table() -> Table:
    return Table(box=None, expand=True, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
