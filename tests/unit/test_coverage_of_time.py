# SPDX-License-Identifier: MIT
"""How much of the time inside calls the motifs cover, and that none of it counts twice."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

import miner
from miner import cost
from tests.conftest import ROOT
from tests.unit.trace_builder import TraceBuilder

FOLDER = ROOT / "datasets"
PROGRAMS = tomllib.loads((FOLDER / "programs.toml").read_text())["programs"]
GOAL = 0.8
"""Of the time inside calls, by the ten largest motifs."""


@pytest.mark.parametrize("name", PROGRAMS)
def test_ten_motifs_cover_a_recorded_program(name: str) -> None:
    found = miner.load(FOLDER / f"{name}.cosytrace", calibration=cost.Calibration(), workers=1)
    assert found.coverage(10) >= GOAL
    assert found.coverage(len(found.file.motifs)) <= 1.0


def test_a_loop_inside_of_a_repeat_counts_once(tmp_path: Path) -> None:
    builder = TraceBuilder()
    program = builder.program("/usr/bin/app")
    for i in range(20):
        program.call("getpid")
        for _ in range(5):
            program.call("lseek", 1, 0, 0)
        program.call("getuid")
        program.call("chmod", path=f"/only/{i}", ret=-i - 1)
    found = miner.load(builder.write(tmp_path / "t.cosytrace"), workers=1)
    assert 0.5 < found.coverage(len(found.file.motifs)) <= 1.0


def test_reads_until_the_end_count_once(tmp_path: Path) -> None:
    """Of what no open in the trace gave, so that they are no part of a loop over files."""
    builder = TraceBuilder()
    program = builder.program("/usr/bin/app")
    for i in range(20):
        program.fds[3] = builder.new_object("file", "")
        program.call("getpid")
        program.call("read", 3, 0x7000, 4096, ret=100)
        program.call("read", 3, 0x7000, 4096, ret=0)
        program.call("getuid")
        program.call("chmod", path=f"/only/{i}", ret=-i - 1)
    found = miner.load(builder.write(tmp_path / "t.cosytrace"), workers=1)
    assert 0.0 < found.coverage(len(found.file.motifs)) <= 1.0
