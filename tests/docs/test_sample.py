"""The sample configuration does what the tutorial and the demo say."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.rig.litellm_version import PACKAGES, needs
from tests.rig.process import environment
from tests.rig.proxy import Proxy

pytestmark = [pytest.mark.proxy, needs(PACKAGES)]

TOP = Path(__file__).parents[2]


def test_the_tutorials_burst_is_answered_as_it_says(folder: Callable[[str], Path]) -> None:
    """Of three requests at once two are answered and one is refused; the status shows what is in flight."""
    proxy = Proxy.start(folder("sample"), yaml.safe_load((TOP / "sample_config.yaml").read_text()))
    try:
        shell = re.findall(
            r"^```sh\n(.*?)^```$", (TOP / "docs" / "tutorial.md").read_text(), re.MULTILINE | re.DOTALL
        )
        _, burst, status, *_ = (block.replace("localhost:4000", f"127.0.0.1:{proxy.port}") for block in shell)
        told = run(burst + status)
    finally:
        proxy.stop()
    assert sorted(re.findall(r"HTTP/1.1 (\d+)", told)) == ["200", "200", "429"]
    assert "x-parallel-limit-name: gpt4-per-key" in told
    assert "is full: 2 of 2 in flight for model=gpt-4 (key 05315140). Retry after 1 s." in told
    status_told = json.loads(told[told.rindex('{"in_flight"') :])
    assert (status_told["in_flight"], status_told["refused_lately"], status_told["store"]) == (0, 1, "memory")


def test_the_demo_shows_a_burst(folder: Callable[[str], Path]) -> None:
    """`demo` admits what the sample's limits admit, refuses the rest, and leaves nothing in flight."""
    command = Path(sys.executable).parent / "litellm-parallel-limits"
    told = subprocess.run(
        [command, "demo"], cwd=folder("demo"), env=environment(), capture_output=True, text=True, check=True
    ).stdout
    assert told.splitlines()[-1] == "11 admitted, 4 refused, 0 left in flight."
    assert len(re.findall("waited [0-9.]+ s", told)) == 2


def run(script: str) -> str:
    """Return what a shell prints."""
    command = ["bash", "-euc", script]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, check=True).stdout
