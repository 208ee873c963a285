# SPDX-License-Identifier: MIT
"""Stock programs under cosy-auto on Debian's kernel with the module: nothing differs."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from kmod.vm import Kernel
from tests.vm.stock import (
    AUTO,
    COSY,
    JOBS,
    NATIVE,
    parse_stock,
    run_stock,
    stock_machine,
    stock_script,
    tree_image,
)


@pytest.mark.parametrize("append", ["nopti", "pti=on"])
def test_outputs_are_identical(
    kernel: Kernel, cosy_module: Path, native_dir: Path, tmp_path: Path, append: str
) -> None:
    """Standard output and error, exit code, and what was copied."""
    rows, errors = run_stock(kernel, native_dir, cosy_module, tmp_path, part="uapi", append=append)
    assert errors == []
    for row in rows:
        assert row.identical, row.job.name
        assert [len(row.instructions[name]) for name in (NATIVE, COSY)] == [1, 1]


def test_the_module_answers(
    kernel: Kernel, cosy_module: Path, native_dir: Path, tmp_path: Path
) -> None:
    """Most of what du asks, unasked; in its children, too; nobody keeps the module afterwards."""
    machine = stock_machine(kernel, native_dir, cosy_module, tmp_path, tree_image(kernel, "uapi"))
    auto = " ".join(AUTO)
    script = f"""du -s /mnt
    {auto} --stats du -s /mnt
    {auto} sh -c 'for i in 1 2 3; do du -s /mnt; done'
    rmmod cosy && echo unloaded"""
    # counted, so that no answer gets too old on a busy host
    result = replace(machine, icount=True).run(script).check()
    said = result.stderr.decode()
    served = re.search(r"^ *dirscan-stat +\d+ +\d+ +(\d+)$", said, re.M)
    assert served, said
    assert int(served[1]) > 800
    native, *cosy, unloaded = result.stdout.decode().splitlines()
    assert cosy == [native] * 4
    assert unloaded == "unloaded"


def test_a_difference_is_seen() -> None:
    """Another exit code, or an output that differs, is no identical row."""
    jobs = JOBS[:2]
    assert "cmp /tmp/native /tmp/cosy && cmp /tmp/native.err /tmp/cosy.err" in stock_script(jobs, 1)
    lines = ["0 1 native 10 0", "0 1 cosy 20 1", "0 same", "1 1 native 5 0", "1 1 cosy 6 0"]
    lines.append("1 served 7 9")
    assert [row.identical for row in parse_stock("\n".join(lines), jobs)] == [False, False]
    lines[1] = "0 1 cosy 20 0"
    assert [row.identical for row in parse_stock("\n".join(lines), jobs)] == [True, False]
    rows = parse_stock("\n".join(lines), jobs)
    assert [(row.served, row.seen) for row in rows] == [(0, 0), (7, 9)]
