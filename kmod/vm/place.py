# SPDX-License-Identifier: MIT
"""Where the harness keeps what it makes."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build-vm"
