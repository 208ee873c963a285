# SPDX-License-Identifier: MIT
"""Where cosy-mine and cosy-report begin (tracer/start.py)."""

from __future__ import annotations

from tracer.start import begin


def mine() -> None:
    """cosy-mine."""
    begin("miner.cli")


def report() -> None:
    """cosy-report."""
    begin("miner.report_cli")
