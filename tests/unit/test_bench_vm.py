# SPDX-License-Identifier: MIT
"""What bench.vm makes of counts."""

from __future__ import annotations

from pathlib import Path

from bench.vm import report
from kmod.vm import Kernel
from tests.vm.stock import JOBS, StockRow

KERNEL = Kernel("6.1", Path(), Path(), Path())


def test_saved_per_answer_leaves_the_start_out() -> None:
    """Medians of three rounds; a program that got no answer saves nothing per answer."""
    start = StockRow(JOBS[0], {"native": [100, 90, 110], "cosy": [300, 300, 300]}, True, 0)
    row = StockRow(JOBS[1], {"native": [5000, 5100, 4900], "cosy": [4200, 4200, 9000]}, True, 10)
    told = report(row, start, KERNEL, "off", True)
    assert (told["native"], told["cosy"], told["ratio"]) == (5000, 4200, 1.19)
    assert (told["served"], told["saved"]) == (10, 100)
    assert report(start, start, KERNEL, "off", True)["saved"] is None
