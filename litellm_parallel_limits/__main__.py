"""`python -m litellm_parallel_limits` is the command line."""

from __future__ import annotations

from litellm_parallel_limits.cli import main

main(prog_name="litellm-parallel-limits")
