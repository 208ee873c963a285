# SPDX-License-Identifier: MIT
"""What bench.vm makes of counts."""

from __future__ import annotations

from pathlib import Path

from bench.vm import report
from kmod.vm import Kernel
from tests.vm.stock import JOBS, StockRow

KERNEL = Kernel("6.1", Path(), Path(), Path())


def test_ratios_and_savings_leave_the_start_out() -> None:
    """Medians of three rounds; a program that got no answer saves nothing per answer."""
    start = StockRow(JOBS[0], {"native": [100, 90, 110], "cosy": [300, 300, 300]}, True, 0, 0)
    row = StockRow(
        JOBS[1], {"native": [5000, 5100, 4900], "cosy": [4200, 4200, 9000]}, True, 10, 40
    )
    told = report(row, start, KERNEL, "uapi", "off", True)
    assert (told["native"], told["cosy"], told["ratio"]) == (5000, 4200, 1.19)
    assert (told["rest"], told["share"]) == (1.256, 0.25)
    assert (told["served"], told["saved"]) == (10, 100)
    nothing = report(start, start, KERNEL, "uapi", "off", True)
    assert (nothing["saved"], nothing["share"], nothing["rest"]) == (None, None, None)
