# SPDX-License-Identifier: MIT
"""The kernel module: /dev/cosy in a virtual machine, compared with plain calls."""

from __future__ import annotations

import json
from pathlib import Path

from kmod.vm import Kernel, Machine
from tests.vm.programs import build_program


def test_fused_operations_read_what_plain_calls_read(
    kernel: Kernel, cosy_module: Path, tmp_path: Path
) -> None:
    """Sums over attributes and contents of 300 files agree, whichever way they are read."""
    bench = build_program("kmod_bench", tmp_path)
    machine = Machine(kernel, files={"/bench": bench}, own_modules=[(cosy_module, "")])
    script = "mkdir /t; for i in $(seq 300); do seq $i >/t/file-$i; done; /bench /t 1"
    result = machine.run(script)
    assert result.returncode == 0, result.stdout
    ways = [json.loads(line)["way"] for line in result.stdout.splitlines()]
    assert ways == ["plain", "fused", "plain", "batch", "directory", "single", "plain", "compound"]
    assert result.complaints == []
