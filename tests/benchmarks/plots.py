"""Draws how costs grow: a panel for each dimension, as SVG. Needs matplotlib (`pip install '.[plots]'`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

COLUMNS = 3
PANEL_INCHES = (3.3, 2.4)
COLOURS = ("#0072b2", "#d55e00")
"""Blue and vermilion: told apart by those, too, who do not see all colours."""

INK, GRID = "#333333", "#dddddd"
HEADROOM = 1.2
"""Of the axis above what is greatest: the names of lines stand there."""

STYLE: Any = {
    "svg.fonttype": "none",  # text as text: small, and it can be searched
    "svg.hashsalt": "growth",  # the same names within the file each time
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": GRID,
    "figure.constrained_layout.h_pad": 0.08,
    "figure.constrained_layout.w_pad": 0.08,
}
"""Of matplotlib, some of whose versions know the names of all settings, and of no others."""

WITHOUT_DATE = {"Date": None, "Creator": None}


@dataclass(frozen=True)
class Panel:
    """What grows, in `steps`, and at each of them what was found for some lines, round by round.

    `what` says what that is.
    """

    title: str
    what: str
    steps: Sequence[int]
    lines: Mapping[str, Sequence[Sequence[float]]]


def draw(panels: Sequence[Panel], path: Path) -> None:
    """Write the panels as one figure, which is the same for the same numbers."""
    import matplotlib as mpl  # noqa: PLC0415 (only who draws needs it)
    from matplotlib.figure import Figure  # noqa: PLC0415

    rows = -(-len(panels) // COLUMNS)
    width, height = PANEL_INCHES
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(COLUMNS * width, rows * height), layout="constrained", facecolor="white")
        places = figure.subplots(rows, COLUMNS, squeeze=False).flat
        for panel, axes in zip(panels, places, strict=False):
            _draw(panel, axes)
        for axes in list(places)[len(panels) :]:
            axes.set_visible(False)
        figure.savefig(path, format="svg", metadata=WITHOUT_DATE)


def _draw(panel: Panel, axes: Any) -> None:
    """Draw one panel: the steps on a log axis, from 0 the medians, and around them from least to greatest."""
    for (name, found), colour in zip(panel.lines.items(), COLOURS, strict=False):
        least, most = [min(rounds) for rounds in found], [max(rounds) for rounds in found]
        axes.fill_between(panel.steps, least, most, color=colour, alpha=0.15, linewidth=0)
        medians = [median(rounds) for rounds in found]
        axes.plot(panel.steps, medians, color=colour, marker="o", markersize=3.5, label=name)
    axes.set_xscale("log")
    axes.set_xticks(panel.steps, labels=[_short(step) for step in panel.steps])
    axes.minorticks_off()
    axes.locator_params(axis="y", nbins=5)
    axes.set_ylim(0, HEADROOM * max(max(rounds) for found in panel.lines.values() for rounds in found))
    axes.set_title(panel.title, loc="left")
    axes.set_ylabel(panel.what)
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    if len(panel.lines) > 1:
        axes.legend(frameon=False, loc="upper right")


def _short(number: int) -> str:
    """Return a number with k for thousands and M for millions, where it is a whole number of them."""
    for unit, name in ((1_000_000, "M"), (1_000, "k")):
        if number % unit == 0:
            return f"{number // unit}{name}"
    return str(number)
