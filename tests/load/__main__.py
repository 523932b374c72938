"""`python -m tests.load`: the load test and its faults, as a command."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import click
from rich.console import Console

from tests.load.backing import Form
from tests.load.clients import Demand
from tests.load.faults import FAULTS, Fault
from tests.load.report import FAULT_COLUMNS, broken, broken_by_fault, fault_row, load_table, markdown
from tests.load.rig import Rig, usual_workers
from tests.load.run import Plan, run

ALL = "all"
FORMS: Mapping[str, tuple[Form, ...]] = {
    "redis": ("redis", "relay", "sentinel", "cluster"),
    "host": ("host",),
    "memory": ("memory",),
}
"""The rigs on which a store is tried: the first without a fault, each with the faults that need it."""


@dataclass(frozen=True)
class Trial:
    """Runs on `store` by `plan`, with leases of `ttl` seconds; what they show goes to the console."""

    store: str
    plan: Plan
    ttl: float
    console: Console = field(default_factory=lambda: Console(width=160, stderr=True))

    def load(self) -> bool:
        """Return whether the promise held while nothing was wrong."""
        with self._rig(FORMS[self.store][0]) as rig:
            record = asyncio.run(run(rig, self.plan))
        self.console.print(load_table(record))
        self.console.print(f"left over: {record.left} at the end, {record.left_later} one time to live later")
        return self._judge(broken(record))

    def faults(self, names: Iterable[str]) -> bool:
        """Return whether the promise held after each of the faults; print a row for each."""
        click.echo(f"{markdown(FAULT_COLUMNS)}\n{markdown(['---'] * len(FAULT_COLUMNS))}")
        chosen = [fault for fault in FAULTS.values() if {ALL, fault.name} & set(names)]
        held = True
        for form in FORMS[self.store]:
            if faults := [fault for fault in chosen if form in fault.forms]:
                with self._rig(form) as rig:
                    for fault in faults:
                        held = self._fault(rig, fault) and held
        return held

    def _fault(self, rig: Rig, fault: Fault) -> bool:
        rig.mend()
        self.console.print(f"{fault.name}: {fault.what}")
        record = asyncio.run(run(rig, self.plan, [fault]))
        self.console.print(load_table(record))
        command = f"python -m tests.load --store {self.store} --fault {fault.name}"
        click.echo(markdown(fault_row(fault, record, command)))
        return self._judge(broken_by_fault(record))

    @contextmanager
    def _rig(self, form: Form) -> Iterator[Rig]:
        self.console.print(f"{form}: {self._how(form)}")
        with tempfile.TemporaryDirectory() as folder, Rig.running(Path(folder), form, self.ttl) as rig:
            self.console.print("every worker is ready")
            yield rig

    def _how(self, form: Form) -> str:
        plan, demand = self.plan, self.plan.demand
        return (
            f"workers of proxies: {usual_workers(form)}; {demand.clients} clients for {plan.seconds:.0f} s, "
            f"the first {plan.warm_up:.0f} s unmeasured; a request takes {demand.takes} s, a refused client "
            f"asks again after {demand.back_off} s; leases live {self.ttl} s; {os.cpu_count()} processors"
        )

    def _judge(self, mistakes: Iterable[str]) -> bool:
        found = list(mistakes)
        for mistake in found:
            self.console.print(f"broken: {mistake}", style="red")
        self.console.print("the promise did not hold" if found else "the promise held")
        return not found


@click.command()
@click.option("--store", type=click.Choice(list(FORMS)), default="redis", show_default=True)
@click.option("--seconds", type=float, help="Length of the load.  [default: 180; 25 with a fault]")
@click.option("--clients", default=200, show_default=True)
@click.option("--takes", default=4.0, show_default=True, help="Mean seconds of the provider for a request.")
@click.option("--back-off", default=3.0, show_default=True, help="Mean seconds until a refused client asks.")
@click.option("--lease-ttl", type=float, help="Seconds that a lease lives.  [default: 30; 6 with a fault]")
@click.option("--fault", "names", multiple=True, type=click.Choice([*FAULTS, ALL]), help="May be repeated.")
def main(
    *,
    store: str,
    seconds: float | None,
    clients: int,
    takes: float,
    back_off: float,
    lease_ttl: float | None,
    names: tuple[str, ...],
) -> None:
    """Hold the promise against a load: never more in flight than the limit, and no needless refusal.

    Ends with 0 if it held. With --fault something breaks in the middle; each fault gives a row.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # ends what runs, too
    plan = Plan(Demand(clients, takes, back_off), seconds or (25 if names else 180))
    trial = Trial(store, plan, lease_ttl or (6 if names else 30))
    sys.exit(not (trial.faults(names) if names else trial.load()))


if __name__ == "__main__":
    main()
