# SPDX-License-Identifier: MIT
"""Stock programs under cosy-auto on Debian's kernel with the module: nothing differs."""

from __future__ import annotations

from pathlib import Path

import pytest

from kmod.vm import Kernel
from tests.vm.stock import COSY, JOBS, NATIVE, parse_stock, run_stock, stock_script


@pytest.mark.parametrize("append", ["nopti", "pti=on"])
def test_outputs_are_identical(
    kernel: Kernel, cosy_module: Path, native_dir: Path, tmp_path: Path, append: str
) -> None:
    """Standard output and error, exit code, and what was copied."""
    rows, complaints = run_stock(
        kernel, native_dir, cosy_module, tmp_path, part="uapi", append=append
    )
    assert complaints == []
    for row in rows:
        assert row.identical, row.job.name
        assert [len(row.instructions[name]) for name in (NATIVE, COSY)] == [1, 1]


def test_a_difference_is_seen() -> None:
    """Another exit code, or an output that differs, is no identical row."""
    jobs = JOBS[:2]
    assert "cmp /tmp/native /tmp/cosy && cmp /tmp/native.err /tmp/cosy.err" in stock_script(jobs, 1)
    lines = ["0 1 native 10 0", "0 1 cosy 20 1", "0 same", "1 1 native 5 0", "1 1 cosy 6 0"]
    assert [row.identical for row in parse_stock("\n".join(lines), jobs)] == [False, False]
    lines[1] = "0 1 cosy 20 0"
    assert [row.identical for row in parse_stock("\n".join(lines), jobs)] == [True, False]
