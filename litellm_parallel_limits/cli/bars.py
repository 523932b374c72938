"""Numbers as bars."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

EIGHTHS = " ▏▎▍▌▋▊▉█"
"""Blocks that fill so many eighths of a cell from its left."""

LEVELS = "▁▂▃▄▅▆▇█"
"""Blocks that fill so many eighths of a cell from below."""

NOTHING = "·"


def bar(share: float, width: int) -> str:
    """Return a bar of `width` cells that is filled to `share`; beyond 1 it is full."""
    filled = round(min(max(share, 0.0), 1.0) * width * 8)
    if share > 0:
        filled = max(filled, 1)
    whole, eighths = divmod(filled, 8)
    return ("█" * whole + EIGHTHS[eighths])[:width].ljust(width)


def sparkline(numbers: Sequence[float], width: int) -> str:
    """Return `numbers` as a line of `width` cells at most, each as high as the largest in its part."""
    if not numbers or width < 1:
        return ""
    cells = min(width, len(numbers))
    ends = [len(numbers) * cell // cells for cell in range(cells + 1)]
    heights = [max(numbers[begin:end]) for begin, end in pairwise(ends)]
    top = max(heights)
    return "".join(_level(height, top) for height in heights)


def _level(height: float, top: float) -> str:
    if height <= 0:
        return NOTHING
    return LEVELS[min(len(LEVELS) - 1, int(height / top * len(LEVELS)))]
