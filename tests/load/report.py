"""What a record says, as tables, and whether the promise held."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import mean

from rich.table import Table

from tests.load.faults import Fault
from tests.load.holdings import Held
from tests.load.parties import LIMIT
from tests.load.record import Record
from tests.rig.ledger import Window

LEAST_MEAN = 3.8
"""In flight on average while more ask than there is room for: 95 % of the limit of 4."""

FAULT_COLUMNS = (
    "fault",
    "peak before / during / after",
    "longest added latency: refused / admitted",
    "exact again after",
    "left over at the end / one ttl later",
    "5xx",
    "cut / unreached",
    "command",
)


def broken(record: Record, least_mean: float = LEAST_MEAN) -> Iterator[str]:
    """Yield what was promised and did not hold in a run without a fault."""
    yield from _broken_always(record)
    for party, history in record.histories.items():
        if (peak := history.peak(record.whole)) > LIMIT:
            yield f"{party}: {peak} in flight at once, of {LIMIT}"
        if (reached := history.mean(record.measured)) < least_mean:
            yield f"{party}: {reached:.2f} in flight on average, promised are {least_mean}"
    if lost := record.ends()["cut"] + record.ends()["unreached"]:
        yield f"{lost} connections lost"
    if record.left is None or any(record.left.values()):
        yield f"left over at the end: {record.left}"


def broken_by_fault(record: Record) -> Iterator[str]:
    """Yield what was promised and did not hold in a run with a fault."""
    yield from _broken_always(record)
    if any(record.exact_again(strike) is None for strike in record.strikes):
        yield "the count was not exact again"


def _broken_always(record: Record) -> Iterator[str]:
    if not record.first_admitted:
        yield "at a limit of 1 not exactly the first was admitted"
    if record.ends()["failed"]:
        statuses = sorted({outcome.status for outcome in record.outcomes if outcome.end == "failed"}, key=str)
        yield f"{record.ends()['failed']} answers other than 200 and 429: {statuses}"
    if record.left_later is None or any(record.left_later.values()):
        yield f"left over one time to live later: {record.left_later}"


def load_table(record: Record) -> Table:
    """Return one row for each party, and one for all."""
    columns = (
        "scope",
        "peak",
        "mean",
        "admitted",
        "refused",
        "left",
        "failed",
        "added ms: median / p99 / max",
    )
    table = Table(*columns, title=f"limit {LIMIT} on each scope, counted at the provider")
    for party, history in record.histories.items():
        table.add_row(
            party,
            str(history.peak(record.whole)),
            f"{history.mean(record.measured):.2f}",
            *_ends(record, party),
            _latency(record.added(record.measured, party)),
        )
    means = mean(history.mean(record.measured) for history in record.histories.values())
    table.add_row(
        "all",
        str(record.peak(record.whole)),
        f"{means:.2f}",
        *_ends(record, None),
        _latency(record.added(record.measured)),
    )
    return table


def fault_row(fault: Fault, record: Record, command: str) -> list[str]:
    """Return what FAULT_COLUMNS name."""
    (strike,) = record.strikes
    exact = record.exact_again(strike)
    before = Window(record.whole.since, strike.at)
    during = Window(strike.at, exact or record.whole.until)
    peaks = [str(record.peak(before)), str(record.peak(during))]
    peaks.append(str(record.peak(Window(exact, record.whole.until))) if exact else "-")
    return [
        fault.what,
        " / ".join(peaks),
        " / ".join(_longest(record.added(during, end=end)) for end in ("refused", "admitted")),
        f"{exact - strike.at:.1f} s" if exact else "never",
        f"{_number(record.left)} / {_number(record.left_later)}",
        str(record.server_errors),
        f"{record.ends()['cut']} / {record.ends()['unreached']}",
        f"`{command}`",
    ]


def markdown(row: Sequence[str]) -> str:
    """Return a line of a Markdown table."""
    return f"| {' | '.join(row)} |"


def _ends(record: Record, party: str | None) -> list[str]:
    ends = record.ends(party)
    return [str(ends[end]) for end in ("admitted", "refused", "left", "failed")]


def _latency(added: Sequence[float]) -> str:
    if not added:
        return "-"
    at = (added[len(added) // 2], added[int(len(added) * 0.99)], added[-1])
    return " / ".join(f"{seconds * 1000:.0f}" for seconds in at)


def _longest(added: Sequence[float]) -> str:
    return f"{added[-1]:.2f} s" if added else "-"


def _number(held: Held | None) -> str:
    return "unknown" if held is None else str(sum(held.values()))
