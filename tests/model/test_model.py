"""The protocol of leases keeps its promises in every state that its model can reach.

The model is leases.pml, docs/model.md explains it. Spin searches every state; a mistake made on purpose
must be found, so that a promise that is kept says something.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

MODEL = Path(__file__).with_name("leases.pml")
DOCS = Path(__file__).parents[2] / "docs" / "model.md"

AT_ONCE = 2
MEGABYTES = 1500
"""For one search: twice what the largest needs."""

SEARCH = ("-DSAFETY", "-DBFS", "-DNOREDUCE", f"-DMEMLIM={MEGABYTES}")
"""Of every state once, nearest first."""

KEPT = "kept"
PROMISE = re.compile(r"^ +PROMISE\((\w+), ", re.MULTILINE)

pytestmark = [
    pytest.mark.skipif(not (shutil.which("spin") and shutil.which("gcc")), reason="needs spin and gcc"),
    pytest.mark.timeout(300),
]

# Largest first: the search of the last one does not keep the others waiting.
SCENARIOS = {
    "losses and late calls": ("LOSS", "DELAY", "CAPACITY=1"),
    "losses, three workers": ("LOSS", "WORKERS=3", "CAPACITY=3", "IDS=1"),
    "losses and crashes": ("LOSS", "CRASH"),
    "everything at once": ("LOSS", "OUTAGE", "PAUSE", "CRASH", "CAPACITY=1"),
    "pauses": ("PAUSE", "DELAY", "RETRY", "CAPACITY=1"),
    "outages": ("OUTAGE", "DELAY", "RETRY", "CAPACITY=1"),
    "crashes": ("CRASH", "DELAY", "RETRY"),
    "a replica that is behind": ("REPLICA", "CAPACITY=1"),
    "late calls": ("DELAY", "RETRY"),
    "losses and deny": ("LOSS", "SHARE=0", "CAPACITY=1"),
}

# What is done wrong, where it matters, and the promise that is broken first.
MISTAKES = {
    "COUNTER": (("DELAY",), "frees_its_own"),
    "NO_REASSERT": (("LOSS",), "covered"),
    "LATE_COUNTS": (("DELAY",), "owned"),
    "KEEPS_LOST_GRANT": ((), "owned"),
    "KEEPS_REFUSED": (("PAUSE", "RETRY"), "owned"),
    "NO_EPOCH": (("LOSS",), "tells_first"),
    "NO_SHARE": (("LOSS",), "bounded"),
    "SETTLING=1": (("LOSS",), "bounded"),
    "STRANGER_RENEWS": (("LOSS", "DELAY"), "owned"),
    "ASKS_FIRST": (("PAUSE",), "tells_first"),
    "READS_OLD_REPLY": (("PAUSE",), "tells_first"),
}

# That no more than the capacity is in flight, where it cannot be promised.
OVERSHOOTS = {
    "losses, by who holds more than a share": ("LOSS", "HOPED=2"),
    "a replica that is behind, by who does not know": ("REPLICA", "HOPED=2"),
    "pauses": ("PAUSE", "HOPED=2"),
    "outages": ("OUTAGE", "HOPED=2"),
}


def test_every_promise_is_kept(tmp_path: Path) -> None:
    """Whatever may happen, in whatever order, breaks no promise, and no state is left out."""
    assert search_all(tmp_path, SCENARIOS) == dict.fromkeys(SCENARIOS, KEPT)


def test_every_mistake_is_found(tmp_path: Path) -> None:
    """Each rule of the protocol is needed: without it a promise is broken."""
    cases = {mistake: (mistake, *where) for mistake, (where, _) in MISTAKES.items()}
    assert search_all(tmp_path, cases) == {mistake: broken for mistake, (_, broken) in MISTAKES.items()}


def test_bounds_are_no_larger_than_they_must_be(tmp_path: Path) -> None:
    """Where the promise allows more in flight than the capacity, more can be in flight."""
    assert search_all(tmp_path, OVERSHOOTS) == dict.fromkeys(OVERSHOOTS, "hoped")


def test_every_mistake_of_the_model_is_made() -> None:
    """The list of mistakes leaves out none that the model can make."""
    mistakes = set(re.findall(r"#ifn?def (\w+) /\* mistake", MODEL.read_text()))
    assert mistakes == MISTAKES.keys() - {"SETTLING=1"}


def test_every_promise_and_mistake_is_explained() -> None:
    """The documentation names what the model promises, and what it is protected from."""
    explained = set(re.findall(r"^\| `([\w=]+)` \|", DOCS.read_text(), re.MULTILINE))
    assert explained == set(PROMISE.findall(MODEL.read_text())) - {"hoped"} | MISTAKES.keys()


def search_all(folder: Path, cases: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Search each case, two at a time, and return what came of each."""
    folders = [folder / str(number) for number, _ in enumerate(cases)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(zip(cases, pool.map(search, folders, cases.values()), strict=True))


def search(folder: Path, macros: Sequence[str]) -> str:
    """Search the model with `macros`, and return which promise it breaks, or that all are kept."""
    folder.mkdir()
    shutil.copy(MODEL, folder)
    defined = [f"-D{macro}" for macro in macros]
    run(folder, "spin", "-a", *defined, MODEL.name)
    run(folder, "gcc", "-O1", "-w", *SEARCH, "-o", "pan", "pan.c")
    told = run(folder, "./pan", "-w22")
    if "errors: 0" in told and not re.search("not completed|too small|truncated|out of memory", told):
        return KEPT
    return broken(run(folder, "spin", "-t", "-T", *defined, MODEL.name)) if "errors: 1" in told else told


def broken(trail: str) -> str:
    """Return the promise that is broken at the end of a trail."""
    return next(iter(re.findall(r"^\s*broken: (\w+)", trail, re.MULTILINE)), trail)


def run(folder: Path, *command: str) -> str:
    """Return what a command says."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout
