"""Outputs that were looked at once, and are to stay as they are.

With WRITE_GOLDEN=1 in the environment they are written anew, to be looked at again.
"""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = Path(__file__).parent / "golden"


def assert_golden(name: str, text: str) -> None:
    """Assert that `text` is what stands in the file of this name."""
    file = FOLDER / name
    lines = "".join(line.rstrip() + "\n" for line in text.splitlines())
    if os.environ.get("WRITE_GOLDEN"):
        file.write_text(lines, encoding="utf-8")
    assert lines == file.read_text(encoding="utf-8")
