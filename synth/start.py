# SPDX-License-Identifier: MIT
"""Where cosy-synth and cosy-doctor begin (tracer/start.py)."""

from __future__ import annotations

from tracer.start import begin


def synth() -> None:
    """cosy-synth."""
    begin("synth.cli")


def doctor() -> None:
    """cosy-doctor."""
    begin("synth.doctor")
